"""`sweep`: run candidate after candidate beside the full model; what is done is kept."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bench.records import append
from ..classes.labels import ClassNames
from ..errors import ModelFileError, OutputError
from ..evaluate import Dataset
from ..storage.ownership import check_replaceable, is_records
from ..storage.tables import build_table
from .candidates import Candidate
from .front import Outcome
from .one import Step, SweepSettings, Task

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from .search import Search

__all__ = ["Climb", "SearchLimits", "SweepSettings", "climb", "read_outcomes", "sweep"]


@dataclass(frozen=True)
class SearchLimits:
    """When a search ends at the latest.

    Attributes:
        tries: Candidates beside the full model, those of earlier calls too.
        seconds: After so long no candidate is begun; None is no limit.
    """

    tries: int = 30
    seconds: float | None = None


@dataclass(frozen=True)
class Climb:
    """What a search tried.

    Attributes:
        candidates: In the order they were tried, the full model first.
        outcomes: Of each.
        ended: ``done`` (no step is left that could be better), ``tries`` or ``time``.
    """

    candidates: list[Candidate]
    outcomes: tuple[Outcome, ...]
    ended: str


def sweep(
    checkpoint: Checkpoint,
    grid: Sequence[Candidate],
    dataset: Dataset,
    classes: ClassNames,
    folder: Path,
    settings: SweepSettings,
    *,
    restart: bool = False,
    force: bool = False,
    on_step: Step = lambda text, share: None,
) -> list[Outcome]:
    """Run a grid of candidates; what an earlier, interrupted call did is not done again.

    Args:
        checkpoint: Weights; only its recipe is varied.
        grid: From :func:`candidates`, the full model first.
        dataset: Labelled or not.
        classes: Names of the classes.
        folder: Gets ``models/NAME.onnx`` and ``outcomes.jsonl``, a record per candidate; made if
            missing.
        settings: How.
        restart: Measure and evaluate everything again; the newest record of a candidate counts.
        force: Replace files that evovit did not write; its own are replaced always.
        on_step: Called as it goes on.

    Returns:
        One outcome per candidate, in order of the grid.

    Raises:
        OutputError: ``folder`` cannot be written, or holds files of these names that evovit did not write.
        ParityError, ExportError: A candidate could not be exported.
        EngineError: The backend does not run here.
        KeyboardInterrupt: What was finished is in ``folder``.
    """
    task = Task(checkpoint, grid[0], dataset, classes, folder, settings)
    journal = _Outcomes(task, grid, restart=restart, force=force)
    return [journal.outcome(one, _part(on_step, one, at, len(grid))) for at, one in enumerate(grid)]


def climb(
    checkpoint: Checkpoint,
    search: Search,
    dataset: Dataset,
    classes: ClassNames,
    folder: Path,
    settings: SweepSettings,
    limits: SearchLimits,
    *,
    restart: bool = False,
    force: bool = False,
    on_step: Step = lambda text, share: None,
    clock: Callable[[], float] = time.monotonic,
) -> Climb:
    """Run what a search asks for, until it asks for no more or a limit is reached.

    The same call goes on where the last one was: its outcomes are there, and lead to the same candidates.

    Args:
        checkpoint, dataset, classes, folder, settings, restart, force, on_step: As for :func:`sweep`.
        search: Of this checkpoint; gets the outcomes.
        limits: When it ends.
        clock: Seconds.

    Raises:
        EvoVitError: As :func:`sweep`.
        KeyboardInterrupt: What was finished is in ``folder``.
    """
    task, start = Task(checkpoint, search.full, dataset, classes, folder, settings), clock()
    journal = _Outcomes(task, [search.full], restart=restart, force=force)
    candidates: list[Candidate] = []
    ended = "done"
    while (point := search.next()) is not None:
        candidate = search.candidate(point)
        if len(candidates) > limits.tries:
            ended = "tries"
            break
        late = limits.seconds is not None and clock() - start >= limits.seconds
        if candidates and late and not journal.has(candidate):
            ended = "time"
            break
        search.found[point] = journal.outcome(candidate, _part(on_step, candidate, len(candidates), limits.tries + 1))
        candidates.append(candidate)
    return Climb(candidates, tuple(search.found.values()), ended)


def _part(on_step: Step, candidate: Candidate, at: int, count: int) -> Step:
    """Progress of one candidate as that of the whole sweep."""
    return lambda text, share: on_step(f"{candidate.name}: {text}", (at + share) / count)


class _Outcomes:
    """Outcomes on disk: those of earlier calls are taken from there, new ones are appended.

    Args:
        task: What is run.
        grid: What is known to come; nothing in the way of it that evovit did not write.
        restart, force: As for :func:`sweep`.
    """

    def __init__(self, task: Task, grid: Sequence[Candidate], *, restart: bool, force: bool) -> None:
        self.task, self.force = task, force
        try:
            (task.folder / "models").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {task.folder}: {error.strerror or error}.") from error
        self.path = task.folder / "outcomes.jsonl"
        for candidate in grid:
            check_replaceable(task.places(candidate), force=force)
        if force and self.path.is_file() and not is_records(self.path):
            self.path.unlink()
        self.common = _key(task.checkpoint, task.full, task.dataset, task.settings)
        self.done = {} if restart else {outcome.key: outcome for outcome in read_outcomes(self.path)}

    def key(self, candidate: Candidate) -> str:
        recipe = json.dumps(candidate.recipe.to_dict(), sort_keys=True)
        return hashlib.sha256((self.common + recipe).encode()).hexdigest()

    def has(self, candidate: Candidate) -> bool:
        return self.key(candidate) in self.done

    def outcome(self, candidate: Candidate, step: Step) -> Outcome:
        key = self.key(candidate)
        if key not in self.done:
            check_replaceable(self.task.places(candidate), force=self.force)
            outcome, report = self.task.run(candidate, key, step)
            append(self.path, {**dataclasses.asdict(outcome), "environment": report.environment})
            self.done[key] = outcome
        return self.done[key]


def read_outcomes(path: Path) -> list[Outcome]:
    """Return the records of earlier runs; none without a file.

    Raises:
        ModelFileError: A line is not a record.
    """
    if not path.is_file():
        return []
    outcomes = []
    older: dict[str, Any] = {"full_ms": None, "macs": None, "full_macs": None, "method": ""}  # which older records lack
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = {**older, **json.loads(line)}
            fields = {field.name: record[field.name] for field in dataclasses.fields(Outcome)}
        except (ValueError, LookupError, TypeError) as error:
            raise ModelFileError(f"{path}, line {number}: not a record of a sweep. Move the file away.") from error
        outcomes.append(build_table(Outcome, fields, f"{path}, line {number}"))
    return outcomes


def _key(checkpoint: Checkpoint, full: Candidate, dataset: Dataset, settings: SweepSettings) -> str:
    """What all outcomes of a sweep depend on."""
    from importlib.metadata import version

    parts = dataclasses.asdict(settings) | {"batch_size": None, "workers": None}  # these two change no outcome
    weights = [checkpoint.sha256, checkpoint.source]
    return json.dumps(
        [version("evovit-deploy"), weights, full.recipe.to_dict(), dataset.digest(), parts], sort_keys=True
    )
