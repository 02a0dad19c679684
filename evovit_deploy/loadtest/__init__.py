"""Measuring a service: what it adds to the engine (:mod:`.speed`), and what it does under load and faults (:mod:`.faults`)."""
