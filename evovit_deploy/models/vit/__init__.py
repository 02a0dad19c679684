"""The DeiT family: Evo-DeiT, its vanilla twin, and ViTs of timm."""
