"""What a model takes and gives, as every floor above reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..classes.scores import no_scores, scores_output
from ..recipes import Transform
from . import check

__all__ = ["ModelSpec"]


@dataclass(frozen=True)
class ModelSpec:
    """What a model takes and gives.

    Attributes:
        name: Model name, e.g. ``evo_deit_small_patch16_224``.
        image_size: S, pixels.
        input: ``float32`` for [B, 3, S, S] normalised, ``uint8`` for [B, S, S, 3] as decoded.
        num_classes: Classes; 0 where no output says.
        outputs: Output names in order.
        batch: The only batch size the model takes, or None for any.
        max_batch: Largest batch in one run, or None; larger ones are split.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``unknown``.
        transform: Eval transform, or None when the file does not say.
        manifest: The manifest the file carries, or None for a file of another tool.
        scores: The output that holds the class scores, by :func:`~evovit_deploy.classes.scores.scores_output`; None where none
            does, or several could. Found by the names of the outputs if not given.
    """

    name: str
    image_size: int
    input: str
    num_classes: int
    outputs: tuple[str, ...]
    batch: int | None = None
    max_batch: int | None = None
    precision: str = "unknown"
    transform: Transform | None = None
    manifest: dict[str, Any] | None = None
    scores: str | None = None

    def __post_init__(self) -> None:
        named = scores_output(self.outputs)
        if self.scores is None and named is not None:
            object.__setattr__(self, "scores", named)
        if self.scores is None:
            object.__setattr__(self, "num_classes", 0)

    def require_scores(self) -> str:
        """Return the output that holds the class scores.

        Raises:
            InputError: There is none, or it is not clear which.
        """
        if self.scores is None:
            raise no_scores(self.name, self.outputs)
        return self.scores

    @property
    def headless(self) -> bool:
        """Whether the model is known to have no classifier."""
        return self.manifest is not None and not self.manifest["recipe"]["structure"].get("head", True)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        size = self.image_size
        return (size, size, 3) if self.input == "uint8" else (3, size, size)

    @classmethod
    def from_manifest(cls, manifest: dict[str, Any], where: str = "this model") -> ModelSpec:
        """Read the spec out of the manifest (see :mod:`evovit_deploy.manifest`) of the file ``where``.

        Raises:
            ModelFileError: The manifest is damaged.
        """
        recipe = check(manifest, where)
        return cls(
            name=manifest["name"],
            image_size=recipe.structure.image_size,
            input=manifest["input"],
            num_classes=recipe.structure.num_classes,
            outputs=tuple(manifest["outputs"]),
            batch=manifest["batch"],
            precision=manifest["precision"],
            transform=recipe.transform,
            manifest=manifest,
        )
