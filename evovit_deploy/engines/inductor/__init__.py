"""Packages of PyTorch's AOTInductor: a module compiled ahead of time into native code, for one kind of machine."""
