"""What a Ray Serve application of this package is given: models, limits, replicas."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..engines.batching.batcher import DEFAULT_MAX_BATCH
from ..errors import InputError
from ..serve.limits import Limits, limit
from ..serve.settings import ModelSource, ServiceSettings

__all__ = ["RayOptions"]


@dataclass(frozen=True, kw_only=True)
class RayOptions(Limits):
    """Arguments of :func:`evovit_deploy.cluster.app`; the module's text explains them. Limits are those of each replica.

    Raises:
        InputError: A value that is impossible, or contradicts another.
    """

    models: tuple[str, ...]
    labels: str | None = None
    provider: str = "auto"
    threads: int | None = limit(None, "CPU threads per operator. Default: num_cpus.", least=1)
    fixed_batch: bool = False
    token_file: str | None = None
    num_replicas: int | None = limit(None, "Copies of the service.", least=1)
    min_replicas: int | None = limit(None, "Copies of the service, at least.", least=0)
    max_replicas: int | None = limit(None, "Copies of the service, at most.", least=1)
    target_ongoing_requests: float | None = limit(None, "Requests at work in a replica that scaling aims at.", above=0)
    num_cpus: float = limit(1.0, "CPUs per replica.", least=0)
    num_gpus: float = limit(0.0, "GPUs per replica.", least=0)
    max_ongoing_requests: int | None = limit(None, "Requests at work in a replica.", least=1)
    max_queued_requests: int | None = limit(None, "Requests that wait at a proxy.", least=1)
    health_check_period_s: float = limit(5.0, "Time between questions after health.", "SECONDS", above=0)
    health_check_timeout_s: float = limit(30.0, "Time to answer one.", "SECONDS", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sources()
        self.settings()
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
    def names(cls) -> list[str]:
        """Return what every argument is called, in the order in which they are listed and written."""
        first = ["models", "labels"]
        return first + [field.name for field in fields(cls) if field.name not in first]

    @classmethod
    def from_dict(cls, arguments: dict[str, Any]) -> RayOptions:
        """Read the arguments of a config file, or of ``serve run`` (where every value is text).

        Raises:
            InputError: An unknown key, a value of the wrong type, or what the constructor refuses.
        """
        known = cls.names()
        unknown = sorted(set(arguments) - set(known))
        if unknown:
            hint = " (route_prefix stands beside args, not in them)" if "route_prefix" in unknown else ""
            raise InputError(f"unknown arguments {', '.join(unknown)}{hint}; valid: {', '.join(known)}.")
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

    def settings(self, token: str | None = None) -> ServiceSettings:
        """Of the service in each replica, which has no address itself."""
        threads = self.threads or max(1, int(self.num_cpus))  # or replicas on one node would crowd each other out
        return ServiceSettings(
            port=0,
            grpc_port=None,
            token=token,
            threads=threads,
            provider=self.provider,
            fixed_batch=self.fixed_batch,
            **{field.name: getattr(self, field.name) for field in fields(Limits)},
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
