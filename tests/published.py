"""The variants of the paper, by the names of their recipes. `export/` may hold others beside them."""

__all__ = ["EVO_DEIT", "EVO_LEVIT"]

EVO_DEIT = [
    "evo_deit_base_patch16_224",
    "evo_deit_base_patch16_384",
    "evo_deit_small_patch16_224",
    "evo_deit_small_patch16_384",
    "evo_deit_tiny_patch16_224",
]
EVO_LEVIT = [f"evo_levit_{size}_{pixels}" for size in ("128", "128s", "192", "256", "384") for pixels in (224, 384)]
