"""The machine: what it is, which packages it has, and what each command needs of it."""
