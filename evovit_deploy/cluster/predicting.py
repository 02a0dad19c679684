"""Image files classified on a Ray cluster, resumable: what was done is on disk, a block of files at a time.

A block is the files of a few batches, so batches are those of a run without Ray. Blocks come back in any order, and each is
written whole, into a folder named by what its results depend on; one that is there is not done again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..classes.scores import NOT_FINITE, Ranking, probabilities, ranking
from ..engines.base import Engine
from ..errors import EngineError, EvoVitError
from ..evaluate.data import Dataset
from ..evaluate.runner import Subject
from ..images.batches import Failure, batches
from ..manifest.spec import ModelSpec
from ..storage.files import printable, write_bytes

__all__ = ["Described", "Job", "Results", "describe", "predict"]

BATCHES = 4  # in a block
RETRIES = 3  # of a block whose worker died, say of a lost node

Row = tuple[Ranking, str | None]  # the best classes of a file, or why there are none
Results = dict[int, list[Row]]  # number of a block -> its rows


@dataclass(frozen=True)
class Job:
    """What is done with every file.

    Attributes:
        model: At this path on every node.
        top_k: Classes a file.
        batch_size: Files in one run; a static batch goes before.
        open: Further arguments of ``Engine.open``.
        num_cpus, num_gpus: Of each copy of the model.
    """

    model: Path
    top_k: int
    batch_size: int
    open: dict[str, Any]
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def engine(self) -> Engine:
        """Return the model, opened where this is called."""
        threads = self.open.get("threads") or max(1, int(self.num_cpus))
        return Engine.open(self.model, **{**self.open, "threads": threads})


@dataclass(frozen=True)
class Described:
    """The model as a worker opened it."""

    spec: ModelSpec
    backend: str
    device: str
    key: str


def describe(job: Job) -> Described:
    """Open the model once in the cluster and say what it is: the driver's machine may have no GPU.

    Raises:
        EvoVitError: It cannot be opened.
        EngineError: The cluster has less than one copy needs, so that Ray would wait for ever.
    """
    import ray

    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, wanted in (("CPU", job.num_cpus), ("GPU", job.num_gpus)):
        if wanted > there.get(name, 0):
            raise EngineError(
                f"each copy of the model asks for {wanted:g} {name}, and the whole cluster has {there.get(name, 0):g}. "
                f"Give less with --{name.lower()}s, or add nodes."
            )

    def look() -> Described:
        with job.engine() as engine:
            key = json.dumps(Subject(engine, job.model).key(), sort_keys=True)
            return Described(engine.spec, engine.backend, engine.device, key)

    remote = ray.remote(num_cpus=job.num_cpus, num_gpus=job.num_gpus)(look)
    with _translated():
        described: Described = ray.get(remote.remote())
    return described


def predict(
    job: Job, described: Described, paths: Sequence[Path], *, replicas: int, restart: bool = False,
    on_rows: Callable[[list[tuple[Path, Row]], bool], None] = lambda rows, resumed: None,
) -> dict[Path, Row]:  # fmt: skip
    """Classify files; an interrupted call goes on where it was when it is made again.

    Args:
        job, described: The model.
        paths: Readable at these paths on every node.
        replicas: Copies of the model.
        restart: Begin again.
        on_rows: Called with the rows of each block as it is done, and whether an earlier run did it.

    Raises:
        EvoVitError: A worker died several times over the same files.
        OutputError: Progress cannot be kept on disk.
    """
    size = BATCHES * (described.spec.batch or job.batch_size)
    blocks = [list(paths[start : start + size]) for start in range(0, len(paths), size)]
    parts = Parts(_folder(job, described, paths), fresh=restart)
    results: Results = {}
    for number, block in enumerate(blocks):
        rows = parts.read(number, len(block))
        if rows is not None:
            results[number] = rows
            on_rows(list(zip(block, rows)), True)
    missing = [number for number in range(len(blocks)) if number not in results]
    for number, rows in _run(job, {number: blocks[number] for number in missing}, replicas):
        parts.write(number, rows)
        results[number] = rows
        on_rows(list(zip(blocks[number], rows)), False)
    parts.discard()
    return {path: row for number, block in enumerate(blocks) for path, row in zip(block, results[number])}


class Parts:
    """A folder with a file for every block that is done.

    Two runs of the same work may share it: they write the same.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self._folder = folder
        if fresh:
            self.discard()

    def read(self, number: int, count: int) -> list[Row] | None:
        """Return the rows of a block; None if it was not done, or its file is not whole."""
        try:
            found = json.loads((self._folder / f"{number}.json").read_bytes())
            rows: list[Row] = [([(int(c), float(p)) for c, p in best], error) for best, error in found]
        except (OSError, ValueError, TypeError):
            return None
        return rows if len(rows) == count else None

    def write(self, number: int, rows: list[Row]) -> None:
        """Keep the rows of a block."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EvoVitError(
                f"cannot keep progress in {self._folder}: {error.strerror}. Set EVOVIT_CACHE to a folder that you can write to."
            ) from error
        write_bytes(self._folder / f"{number}.json", json.dumps(rows).encode())

    def discard(self) -> None:
        """Forget everything."""
        shutil.rmtree(self._folder, ignore_errors=True)


class BlockScorer:
    """Classifies the files of a block; each copy is an actor of Ray."""

    def __init__(self, job: Job) -> None:
        self._job, self._engine = job, job.engine()

    def ready(self) -> None:
        """Answers when the model is open."""

    def score(self, paths: list[Path]) -> list[Row]:
        """Rows of files, in order."""
        spec = self._engine.spec
        unread: list[Failure] = []
        found: dict[Path, Row] = {}
        for names, images in batches(paths, spec, spec.batch or self._job.batch_size, failures=unread):
            for path, values in zip(names, probabilities(self._engine(images))):
                finite = np.isfinite(values).all()
                found[path] = (ranking(values, self._job.top_k), None) if finite else ([], NOT_FINITE)
        found.update({failure.path: ([], failure.reason) for failure in unread})
        return [found[path] for path in paths]


def _run(job: Job, blocks: dict[int, list[Path]], replicas: int) -> Iterator[tuple[int, list[Row]]]:
    """Rows of blocks, as they are done. A copy gets blocks once it is up, so one without a place in the cluster holds none."""
    import ray

    # Bounded, since a worker may also die of one of its images.
    options: Any = {"max_restarts": RETRIES, "max_task_retries": RETRIES}
    copies: Any = ray.remote(num_cpus=job.num_cpus, num_gpus=job.num_gpus, **options)(BlockScorer)
    actors: list[Any] = [copies.remote(job) for _ in range(min(replicas, len(blocks)))]
    todo = iter(blocks.items())
    pending: dict[Any, tuple[Any, int | None]] = {actor.ready.remote(): (actor, None) for actor in actors}
    left = len(blocks)
    try:
        while left:
            [done], _ = ray.wait(list(pending), num_returns=1)
            actor, number = pending.pop(done)
            held = [number, *(other for owner, other in pending.values() if owner is actor)]
            first = min((other for other in held if other is not None), default=None)  # it works at them in order
            mine = blocks[first] if first is not None else []
            with _translated(f" over {printable(mine[0])} to {printable(mine[-1])}" if mine else ""):
                rows = ray.get(done)
            for following, paths in islice(todo, 2 if number is None else 1):  # one ahead of the one it works at
                pending[actor.score.remote([path.absolute() for path in paths])] = (actor, following)
            if number is not None:
                left -= 1
                yield number, rows
    finally:
        for actor in actors:
            ray.kill(actor)


class _translated:
    """Ray's errors as this package's: the worker's own where it is one."""

    def __init__(self, over: str = "") -> None:
        self._over = over

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from ray.exceptions import RayError

        if isinstance(error, RayError):
            cause: BaseException | None = error
            while cause is not None and not (isinstance(cause, EvoVitError) and not isinstance(cause, RayError)):
                cause = getattr(cause, "cause", None) or cause.__cause__
            if cause is not None:
                raise cause from error
            raise EngineError(
                f"a worker of Ray failed{self._over}; what is done is kept. {str(error).strip()[:500]}"
            ) from error


def _folder(job: Job, described: Described, paths: Sequence[Path]) -> Path:
    from importlib.metadata import version

    from ..storage.cache import cache_folder

    digest = Dataset(job.model, tuple(paths), None).digest()
    work = asdict(job) | {"model": str(job.model), "open": sorted(job.open.items(), key=str)}
    key = json.dumps([version("evovit-deploy"), described.key, digest, work], sort_keys=True, default=str)
    return cache_folder() / "predict" / hashlib.sha256(key.encode()).hexdigest()[:32]
