"""The models of a service by name and version: loaded, found, reloaded, unloaded."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from ..classes.labels import read_labels
from ..engines.base import Engine
from ..errors import EvoVitError, Overloaded
from .gauges import Gauges
from .metrics import Metrics
from .models import Opener, ServedModel, open_engine
from .rejections import Rejected
from .settings import ModelSource, ServiceSettings

__all__ = ["ModelRepository"]

log = logging.getLogger("evovit.serve")


class _Entry:
    """A version: its file, the model while it is loaded, and why it is not."""

    def __init__(self, source: ModelSource) -> None:
        self.source = source
        self.model: ServedModel | None = None
        self.state, self.reason = "LOADING", ""
        self.lock = threading.Lock()  # one load or unload at a time


class ModelRepository:
    """Every model that was named at the start; clients can choose among them and never name a file.

    Args:
        sources: The models.
        settings: How to open and batch them.
        metrics: Where they count.
        labels: File of class names, used for every model.
        opener: Opens an engine; for tests.
    """

    def __init__(
        self, sources: list[ModelSource], settings: ServiceSettings, metrics: Metrics, *, labels: Path | None = None,
        opener: Opener = open_engine,
    ) -> None:  # fmt: skip
        self._settings, self._metrics, self._labels, self._opener = settings, metrics, labels, opener
        self._entries: dict[str, dict[str, _Entry]] = {}
        self._closing = False
        for source in sources:
            self._entries.setdefault(source.name, {})[source.version] = _Entry(source)
        metrics.watch(Gauges(self.loaded))

    def load_all(self) -> None:
        """Open and warm everything.

        Raises:
            EvoVitError: The first that cannot be served.
        """
        for entry in self._all():
            self._open(entry)

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a model that takes requests: this version, or the newest that is loaded.

        Raises:
            Rejected: 404, no such model or version.
            Overloaded: It is not loaded.
        """
        versions = self._versions(name)
        if version:
            if version not in versions:
                raise Rejected(404, f"model {name} has no version {version[:20]!r}; it has {', '.join(versions)}.")
            model = versions[version].model
        else:
            loaded = [entry.model for entry in versions.values() if entry.model is not None]
            model = max(loaded, key=lambda model: int(model.version), default=None)
        if model is None:
            raise Overloaded(f"model {name} is not loaded.")
        return model

    def default(self, version: str = "") -> ServedModel:
        """Return the model of a service that has one; several have to be told apart.

        Raises:
            Rejected: 400, there are several.
        """
        if len(self._entries) != 1:
            raise Rejected(400, f"say which model: {', '.join(self._entries)}.")
        return self.find(next(iter(self._entries)), version)

    def versions(self, name: str) -> list[str]:
        """Return the versions of a model that are loaded, oldest first."""
        loaded = (version for version, entry in self._versions(name).items() if entry.model is not None)
        return sorted(loaded, key=int)

    def loaded(self) -> list[ServedModel]:
        """Return every model that is loaded."""
        return [entry.model for entry in self._all() if entry.model is not None]

    @property
    def ready(self) -> bool:
        """Whether every model that should be loaded takes requests."""
        wanted = [entry for entry in self._all() if entry.state != "UNAVAILABLE" or entry.reason != "unloaded"]
        return all(entry.model is not None and entry.model.ready for entry in wanted)

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Return the name, version, state and reason of each; of those only that are ready, if so wished."""
        return [
            {
                "name": entry.source.name,
                "version": entry.source.version,
                "state": entry.state,
                "reason": entry.reason,
            }
            for entry in self._all()
            if not ready or entry.state == "READY"
        ]

    def load(self, name: str) -> None:
        """Load every version of a model; one that is loaded is read again from its file, without losing a request.

        Raises:
            Rejected: 403, 404, or 409 and why the file cannot be served.
            Overloaded: The service stops, or stopped meanwhile.
        """
        self._allow()
        for entry in self._versions(name).values():
            with entry.lock:
                try:
                    self._goes_on()
                    self._reload(entry.model, entry.source) if entry.model is not None else self._open(entry)
                    self._goes_on(entry)
                except Exception as error:
                    self._goes_on(entry)
                    if not isinstance(error, EvoVitError):
                        raise
                    log.error("%s version %s: %s", name, entry.source.version, error)
                    kept = "it goes on with the old file; " if entry.model is not None else ""
                    raise Rejected(
                        409,
                        f"version {entry.source.version} of {name} cannot be loaded from its file; "
                        f"{kept}the log of the service says why.",
                    ) from error

    def unload(self, name: str) -> None:
        """Unload every version of a model, once its accepted requests are answered.

        Raises:
            Rejected: 403 or 404.
        """
        self._allow()
        for entry in self._versions(name).values():
            with entry.lock:
                model, entry.model = entry.model, None
                entry.state, entry.reason = "UNAVAILABLE", "unloaded"
                if model is not None:
                    model.close(self._settings.drain)

    def close(self, timeout: float) -> int:
        """Unload everything; returns how many requests could not be answered in time."""
        lost, self._closing = 0, True
        for entry in self._all():
            model, entry.model = entry.model, None
            entry.state, entry.reason = "UNAVAILABLE", "unloaded"
            if model is not None:
                lost += model.close(timeout)
        return lost

    def _goes_on(self, entry: _Entry | None = None) -> None:
        """Raise Overloaded if everything is being unloaded, once more for what ``entry`` got meanwhile."""
        if not self._closing:
            return
        model = None if entry is None else entry.model
        if entry is not None and model is not None:
            entry.model = None
            entry.state, entry.reason = "UNAVAILABLE", "unloaded"
            model.close(0)
        raise Overloaded("the service stops; no model is loaded any more.")

    def _open(self, entry: _Entry) -> None:
        entry.state, entry.reason = "LOADING", ""
        engine: Engine | None = None
        try:
            engine = self._opener(entry.source, self._settings)
            names = None
            if self._labels is not None:
                names = [parts[-1] for parts in read_labels(self._labels, engine.spec.num_classes)]
            entry.model = ServedModel(entry.source, engine, self._settings, self._metrics, names)
        except BaseException:
            entry.state, entry.reason = "UNAVAILABLE", "it could not be loaded; the log of the service says why"
            if engine is not None:
                engine.close()
            raise
        entry.state = "READY"
        _note(entry.source, engine)

    def _reload(self, model: ServedModel, source: ModelSource) -> None:
        engine = self._opener(source, self._settings)
        try:
            model.swap(engine)
        except BaseException:
            engine.close()
            raise
        _note(source, engine)

    def _versions(self, name: str) -> dict[str, _Entry]:
        if name not in self._entries:
            raise Rejected(404, f"no model called {name[:80]!r}; there is {', '.join(self._entries)}.")
        return self._entries[name]

    def _all(self) -> list[_Entry]:
        return [entry for versions in self._entries.values() for entry in versions.values()]

    def _allow(self) -> None:
        if not self._settings.control:
            raise Rejected(403, "loading and unloading is not allowed; start the service with --allow-control.")


def _note(source: ModelSource, engine: Engine) -> None:
    """Log that a file does not say how its images were made, where it does not."""
    if engine.spec.transform is None:
        log.warning(
            "note: %s does not say how its images are prepared; /v1/classify does it as for ImageNet: the shorter side to "
            "256/224 of the size, the centre, ImageNet's mean and standard deviation.",
            source.path,
        )
