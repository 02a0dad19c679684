"""Evo-DeiT and its vanilla twin as inference modules, token evolution, and exact weight folding."""
