"""Evo-DeiT, Evo-LeViT and their vanilla twins as inference modules, token evolution, and exact weight folding."""
