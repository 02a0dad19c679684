"""A model that is measured: what a record says of it, and the engine that it runs in."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engines.base import Engine

__all__ = ["Facts", "Opened", "Subject"]


@dataclass(frozen=True)
class Facts:
    """What is known of a model beside its speed; None where it is not.

    Attributes:
        load_ms: From the file to an open engine, without export or build.
        first_ms: First call, at the smallest batch size of the run.
        memory_mib: Memory that loading and the first calls at the smallest and largest batch size took, at its peak: resident
            memory of the process on a CPU, memory of the device on a GPU.
        macs: Multiply-accumulates for one image, counted in the graph.
        weight_bytes: Weights of the matrix products and convolutions.
        activation_bytes: What these read and write for one image, beside weights.
        model_sha256: Of the file that was run.
        recipe_sha256: Of the recipe's canonical JSON.
        top1: Share of the labelled images that were classified right.
        labelled: How many labelled images there were.
        published_speedup: What the paper measured for this model, see ``published_source``.
        published_images_per_second: Likewise, its throughput.
        published_source: Where.
    """

    load_ms: float | None = None
    first_ms: float | None = None
    memory_mib: float | None = None
    macs: float | None = None
    weight_bytes: float | None = None
    activation_bytes: float | None = None
    model_sha256: str | None = None
    recipe_sha256: str | None = None
    top1: float | None = None
    labelled: int | None = None
    published_speedup: float | None = None
    published_images_per_second: float | None = None
    published_source: str | None = None


@dataclass(frozen=True)
class Subject:
    """A model that was measured; ``label`` is its name in the report."""

    label: str
    name: str
    backend: str
    device: str
    precision: str
    image_size: int
    input: str
    batch: int | None
    outputs: tuple[str, ...]
    family: str | None = None
    variant: str | None = None
    selection: str | None = None
    opset: int | None = None
    random_weights: bool | None = None
    facts: Facts = Facts()

    @classmethod
    def of(cls, label: str, engine: Engine, facts: Facts = Facts()) -> Subject:
        """Describe an open engine."""
        spec, manifest = engine.spec, engine.spec.manifest or {}
        return cls(
            label,
            spec.name,
            engine.backend,
            engine.device,
            spec.precision,
            spec.image_size,
            spec.input,
            spec.batch,
            spec.outputs,
            family=manifest.get("family"),
            variant=manifest.get("variant") or None,
            selection=manifest.get("selection"),
            opset=manifest.get("opset"),
            random_weights=(manifest.get("weights") or {}).get("random"),
            facts=facts,
        )


@dataclass(frozen=True)
class Opened:
    """A subject ready to run: the way to an engine ends in one, and everything learned of the model goes into it."""

    subject: Subject
    engine: Engine

    @classmethod
    def of(cls, engine: Engine, facts: Facts | None = None, label: str | None = None) -> Opened:
        """Describe an open engine; its label is the model's own name unless one is given."""
        return cls(Subject.of(engine.spec.name if label is None else label, engine, facts or Facts()), engine)

    def but(self, **changes: Any) -> Opened:
        """Return it with other values of the subject: its label, or what only the caller knows of the weights."""
        return Opened(dataclasses.replace(self.subject, **changes), self.engine)

    def knowing(self, **facts: Any) -> Opened:
        """Return it with more facts."""
        return self.but(facts=dataclasses.replace(self.subject.facts, **facts))
