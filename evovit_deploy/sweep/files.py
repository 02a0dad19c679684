"""`evovit sweep` as a call: a checkpoint and images in; a table, a plot and the recipe to deploy out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..bench.markdown import markdown
from ..bench.text import Table
from ..checkpoint import Checkpoint
from ..checkpoint.options import CheckpointOptions
from ..classes.folders import ClassOrder
from ..classes.labels import ClassNames
from ..errors import EngineError, InputError
from ..evaluate import Dataset, read_dataset
from ..machine.extras import require
from ..models.families import by_method, family_of
from ..recipes import Recipe
from ..recipes.write import write_recipe
from ..storage.files import exact, write_bytes
from ..storage.ownership import XML, check_not_read, check_replaceable, is_signed, remove_stale, signed
from .candidates import Candidate, candidates
from .front import Outcome, choose, comparable, front
from .one import Step, SweepSettings
from .plot import PURPOSE, Axis, plot
from .runner import Climb, SearchLimits, climb, sweep
from .search import Search
from .table import table

__all__ = ["SweepOptions", "SweepResult", "sweep_files"]

Say = Callable[[str], None]
HTML = "<!-- ", " -->"


@dataclass(frozen=True)
class SweepOptions:
    """What is tried, how it is measured, and what is picked.

    Attributes:
        checkpoint: How the checkpoint is understood; its ``from_timm`` names a ViT of timm.
        ratios: Keep ratios to try; None is the family's choice.
        r: Tokens merged a block, of a method that merges, to try; None is the family's choice.
        methods: What goes on a ViT of timm, each tried; empty is the one that ``checkpoint`` says.
        per_stage: Try every combination of them over the stages, not one ratio for all.
        schedules: ``stage``, ``layer`` or both; empty is the first that the family has.
        budget_ms: Pick the most accurate candidate within this latency per call, milliseconds.
        max_drop: Pick the fastest candidate that loses at most this many percentage points.
        settings: How candidates are measured and evaluated.
        labels: File with the class names; None is none.
        class_order: How training numbered the class folders; None goes by their names.
        folder: For models, records, plot, table and recipe.
        restart: Measure everything again.
        force: Replace files that evovit did not write.
        search: When a search of schedules ends, at the latest; None tries the ratios alone.
        axis: Of the plot: ``speedup`` or ``macs``.
    """

    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    ratios: tuple[float, ...] | None = None
    r: tuple[float, ...] | None = None
    methods: tuple[str, ...] = ()
    per_stage: bool = False
    schedules: tuple[str, ...] = ()
    budget_ms: float | None = None
    max_drop: float | None = None
    settings: SweepSettings = field(default_factory=SweepSettings)
    labels: Path | None = None
    class_order: ClassOrder | None = None
    folder: Path = Path("sweep")
    restart: bool = False
    force: bool = False
    search: SearchLimits | None = None
    axis: Axis = "speedup"

    def __post_init__(self) -> None:
        if self.max_drop is not None and not -100 <= self.max_drop <= 100:
            raise InputError(
                f"--max-drop {self.max_drop:g} is not a number of percentage points; give one such as 0.5."
            )
        if self.search is not None and not self.picks:
            raise InputError("--search needs to know what for: give --max-drop POINTS, --budget TIME, or both.")
        if self.search is not None and self.per_stage:
            raise InputError("--search goes over the stages by itself. Leave --per-stage out.")
        for method in self.methods:
            by_method(method)
        if self.search is not None and len(self.methods) > 1:
            raise InputError("--search is for one method: give --method with one name.")
        if self.search is not None and len(self.schedules) > 1:
            raise InputError("--search stays in one schedule: give --schedule stage or --schedule layer.")

    @property
    def picks(self) -> bool:
        """Whether one candidate is picked."""
        return self.budget_ms is not None or self.max_drop is not None


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found and wrote.

    Attributes:
        outcomes: One a candidate, the full model first.
        title: Model, precision, batch and data.
        picked: The candidate to deploy; None if none was asked for.
        ended: Of a search: ``done``, ``tries`` or ``time``; None without one.
        recipe, plot, table: Files; ``recipe`` is None if nothing was picked, ``plot`` if matplotlib is missing.
    """

    outcomes: tuple[Outcome, ...]
    title: str
    picked: Outcome | None
    recipe: Path | None
    plot: Path | None
    table: Path
    ended: str | None = None

    @property
    def shown(self) -> Table:
        """The outcomes as a table."""
        return table(self.outcomes, self.title)

    @property
    def stable(self) -> bool:
        """Whether every measurement settled."""
        return all(outcome.stable for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        latency = comparable(self.outcomes)
        return {
            "schema": 1,
            "outcomes": [{**dataclasses.asdict(one), "comparable_ms": latency[one.key]} for one in self.outcomes],
            "front": [outcome.name for outcome in front(self.outcomes)],
            "picked": None if self.picked is None else self.picked.name,
            "recipe": None if self.recipe is None else exact(self.recipe),
            "plot": None if self.plot is None else exact(self.plot),
            "search": None if self.ended is None else {"tried": len(self.outcomes) - 1, "ended": self.ended},
        }


def sweep_files(
    path: Path | None,
    data: Path,
    options: SweepOptions | None = None,
    *,
    note: Say = lambda text: None,
    warn: Say = lambda text: None,
    on_step: Step = lambda text, share: None,
) -> SweepResult:
    """Try keep ratios and schedules of a checkpoint, write table and plot, and pick a recipe if asked.

    Args:
        path: Checkpoint; or, with ``from_timm``, the weights of that ViT, None for random ones.
        data: See :func:`.read_dataset`.
        options: See :class:`SweepOptions`.
        note: Called with what was assumed.
        warn: Called with what may well be wrong.
        on_step: Called as it goes on.

    Raises:
        InputError: Neither a checkpoint nor a ViT of timm, options that do not go together, or no candidate within the limits.
        OutputError: Files that evovit did not write are in the way.
        EvoVitError: See :func:`.sweep`.
    """
    options = options or SweepOptions()
    folder = options.folder
    plotted, tabled, written = folder / "front.svg", folder / "front.md", folder / "recipe.toml"
    places = [plotted, tabled, *([written] if options.picks else [])]
    recipe = options.checkpoint.recipe
    check_not_read(places, [path, data, options.labels, recipe if isinstance(recipe, str) else None])
    check_replaceable({place: is_signed for place in places if place.exists()}, force=options.force)
    if path is None and options.checkpoint.from_timm is None:
        raise InputError("give a checkpoint, or --from-timm NAME and its --weights FILE.")
    every = _loaded(options, path)
    loaded = every[0]
    if not loaded.recipe.structure.head:
        raise InputError(
            f"{loaded.recipe.name} has no classification head, and a sweep weighs speed against accuracy. Give weights with a "
            "head; features are compared as docs/embeddings.md shows."
        )
    if loaded.random:
        note("random weights: speed is measured, and accuracy means nothing")
    grid = _grid([one.recipe for one in every], options)
    search = None
    if options.search is not None:
        search = Search.around(
            grid[0], next(iter(options.schedules), None), options.ratios, options.r,
            max_drop=options.max_drop, budget_ms=options.budget_ms,
        )  # fmt: skip
    classes = ClassNames.read(options.labels, loaded.recipe.structure.num_classes)
    dataset = read_dataset(data, classes, options.class_order)
    for text in dataset.warnings:
        warn(text)
    for text in dict.fromkeys((*(text for one in every for text in one.notes), *dataset.notes)):
        note(text)
    if (undrawn := _undrawn()) is not None:
        note(f"no {plotted.name}: {undrawn} The same command then draws it without measuring again.")
    ended = None
    if search is None:
        found = sweep(
            loaded, grid, dataset, classes, folder, options.settings,
            restart=options.restart, force=options.force, on_step=on_step,
        )  # fmt: skip
        outcomes = tuple(found)
    else:
        assert options.search is not None
        climbed = climb(
            loaded, search, dataset, classes, folder, options.settings, options.search,
            restart=options.restart, force=options.force, on_step=on_step,
        )  # fmt: skip
        grid, outcomes, ended = climbed.candidates, climbed.outcomes, climbed.ended
        note(_ended(climbed, options.search))
    name = loaded.recipe.name if len(every) == 1 else loaded.recipe.baseline
    title = _title(name, dataset, options.settings, outcomes)
    if undrawn is None:
        write_bytes(plotted, signed(plot(outcomes, title, options.axis), "sweep", XML).encode())
    else:
        remove_stale([plotted], is_signed, [])  # it would show what an earlier run found
    text = f"{title}:\n\n{markdown(table(outcomes, title))}\n\n"
    write_bytes(tabled, signed(text, "sweep", HTML).encode())
    picked = _pick(outcomes, grid, options, written) if options.picks else None
    pictured = plotted if undrawn is None else None
    return SweepResult(outcomes, title, picked, None if picked is None else written, pictured, tabled, ended)


def _loaded(options: SweepOptions, path: Path | None) -> list[Checkpoint]:
    """The weights with each of the methods."""
    found = []
    for method in options.methods or (options.checkpoint.method,):
        asked = dataclasses.replace(options.checkpoint, method=method)
        found.append(asked.random() if path is None else asked.load(path))
    families = [family_of(one.recipe) for one in found]
    for option, rate, given in (("--ratios", "keep", options.ratios), ("--r", "r", options.r)):
        if given is not None and all(rate not in family.rates for family in families):
            labels = ", ".join(dict.fromkeys(family.label for family in families))
            takes = "--r" if rate == "keep" else "--ratios"
            raise InputError(f"{option} is not for {labels}, which takes {takes}. Leave it out.")
    return found


def _grid(recipes: list[Recipe], options: SweepOptions) -> list[Candidate]:
    """The full model, which is the same function for all methods, then what each of them tries."""
    grids = [
        candidates(recipe, options.ratios, r=options.r, per_stage=options.per_stage, schedules=options.schedules)
        for recipe in recipes
    ]
    if len(grids) == 1:
        return grids[0]
    return [
        grids[0][0],
        *(
            dataclasses.replace(one, name=f"{family_of(one.recipe).method}_{one.name}")
            for grid in grids
            for one in grid[1:]
        ),
    ]


def _ended(climbed: Climb, limits: SearchLimits) -> str:
    """Why a search ended, and what to do about it."""
    tried = f"the search tried {len(climbed.outcomes) - 1} schedules beside the full model"
    if climbed.ended == "done":
        return f"{tried}; no step from the best could be better"
    more = (
        "--time: the same command goes on"
        if climbed.ended == "time"
        else f"--tries {limits.tries}: more go on from here"
    )
    return f"{tried} and ended at {more}"


def _undrawn() -> str | None:
    """Why there can be no plot, and what to install; None where there can."""
    try:
        require("report", PURPOSE, "matplotlib")
    except EngineError as error:
        return str(error)
    return None


def _title(name: str, dataset: Dataset, settings: SweepSettings, outcomes: tuple[Outcome, ...]) -> str:
    what = "labelled images" if dataset.labels else "images without labels"
    return f"{name}, {settings.precision}, batch {settings.batch}, {outcomes[0].images} {what}"


def _pick(outcomes: tuple[Outcome, ...], grid: list[Candidate], options: SweepOptions, path: Path) -> Outcome:
    """Choose a candidate and write its recipe."""
    picked = choose(outcomes, budget_ms=options.budget_ms, max_drop=options.max_drop)
    best = next(candidate for candidate in grid if candidate.name == picked.name)
    drop = f"drop {picked.drop:.2f} points on {picked.images} images"
    took = f"{comparable(outcomes)[picked.key]:.3g} ms per call of {picked.batch}"
    write_recipe(path, best.recipe, f"Picked by evovit sweep: {picked.name}, {took}, {drop}.")
    return picked
