"""The LeViT family: Evo-LeViT and its vanilla twin."""
