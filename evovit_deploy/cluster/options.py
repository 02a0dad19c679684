"""What a Ray Serve application of this package is given: models, limits, replicas."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..engines.batching.batcher import DEFAULT_MAX_BATCH
from ..errors import InputError
from ..serve.settings import ModelSource, Settings

__all__ = ["RayOptions"]

OF_REPLICA = (
    "provider", "max_batch", "fixed_batch", "max_delay_ms", "max_queue", "workers", "run_timeout", "timeout", "body_timeout",
    "max_request_mib", "max_body_mib", "max_pixels", "max_concurrent", "drain",
)  # fmt: skip


@dataclass(frozen=True)
class RayOptions:
    """Arguments of :func:`evovit_deploy.cluster.app`; the module's text explains them.

    Raises:
        InputError: A value that is impossible, or contradicts another.
    """

    models: tuple[str, ...]
    labels: str | None = None
    provider: str = "auto"
    threads: int | None = None
    max_batch: int | None = None
    fixed_batch: bool = False
    max_delay_ms: float = 0.0
    max_queue: int = 256
    workers: int = 1
    run_timeout: float = 60.0
    timeout: float = 30.0
    body_timeout: float = 30.0
    max_request_mib: int = 64
    max_body_mib: int = 256
    max_pixels: int = 50_000_000
    max_concurrent: int = 512
    drain: float = 30.0
    token_file: str | None = None
    num_replicas: int | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    target_ongoing_requests: float | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    max_ongoing_requests: int | None = None
    max_queued_requests: int | None = None
    health_check_period_s: float = 5.0
    health_check_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        self.sources()
        self.settings()
        if not self.max_delay_ms >= 0:
            raise InputError(f"max_delay_ms is {self.max_delay_ms}; give 0 or more.")
        for name in (
            "threads", "max_batch", "num_replicas", "max_replicas", "target_ongoing_requests", "max_ongoing_requests",
            "max_queued_requests", "health_check_period_s", "health_check_timeout_s",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; give more than 0.")
        for name in ("num_cpus", "num_gpus", "min_replicas"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError(f"{name} is {value}; give 0 or more.")
        if (self.min_replicas is None) != (self.max_replicas is None):
            raise InputError("autoscaling needs min_replicas and max_replicas.")
        if self.autoscaled:
            if self.num_replicas is not None:
                raise InputError("give num_replicas, or min_replicas and max_replicas, not both.")
            assert self.min_replicas is not None
            assert self.max_replicas is not None
            if self.min_replicas > self.max_replicas:
                raise InputError(
                    f"min_replicas is {self.min_replicas} and max_replicas {self.max_replicas}; give a range."
                )
        elif self.target_ongoing_requests is not None:
            raise InputError("target_ongoing_requests is for autoscaling: give min_replicas and max_replicas too.")

    @classmethod
    def from_dict(cls, arguments: dict[str, Any]) -> RayOptions:
        """Read the arguments of a config file, or of ``serve run`` (where every value is text).

        Raises:
            InputError: An unknown key, a value of the wrong type, or what the constructor refuses.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(arguments) - known)
        if unknown:
            hint = " (route_prefix stands beside args, not in them)" if "route_prefix" in unknown else ""
            raise InputError(
                f"unknown arguments {', '.join(unknown)}{hint}; valid: {', '.join(field.name for field in fields(cls))}."
            )
        if "models" not in arguments:
            raise InputError('the argument models is missing: ["NAME=FILE", ...].')
        hints = get_type_hints(cls)
        return cls(**{name: _read(name, value, hints[name]) for name, value in arguments.items()})

    @property
    def autoscaled(self) -> bool:
        """Whether the number of replicas follows the load."""
        return self.max_replicas is not None

    @property
    def batch(self) -> int:
        """Images per batch, as far as is known before an engine is open."""
        return self.max_batch or DEFAULT_MAX_BATCH

    @property
    def ongoing(self) -> int:
        """Requests that a replica has at once: a batch that runs and one that gathers; what is beyond waits at a proxy, from
        where any replica may take it."""
        return self.max_ongoing_requests or 2 * self.batch

    def sources(self) -> list[ModelSource]:
        """Return the models."""
        return ModelSource.parse_all(list(self.models))

    def settings(self, token: str | None = None) -> Settings:
        """Of the service in each replica, which has no address itself."""
        threads = self.threads or max(1, int(self.num_cpus))  # or replicas on one node would crowd each other out
        return Settings(
            port=0, grpc_port=None, token=token, threads=threads, **{name: getattr(self, name) for name in OF_REPLICA}
        )

    def token(self) -> str | None:
        """Return the bearer token of the file, as a replica reads it.

        Raises:
            InputError: The file cannot be read.
        """
        if self.token_file is None:
            return None
        try:
            return Path(self.token_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.token_file}: the token cannot be read: {error}.") from error


def _read(name: str, value: Any, hint: Any) -> Any:
    """``value`` as the type of a field; text, as ``serve run`` gives it, is read as that type."""
    if name == "models":
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f'models is {value!r}; give a list of texts such as ["digits=/models/digits.onnx"].')
        return tuple(texts)
    kinds = get_args(hint) or (hint,)
    if value is None and type(None) in kinds:
        return None
    kind = next(kind for kind in kinds if kind is not type(None))
    if isinstance(value, str) and kind is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if isinstance(value, str) and kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise InputError(f"{name} is {value!r}; it must be {'a whole number' if kind is int else kind.__name__}.")
    return value
