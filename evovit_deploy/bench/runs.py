"""`evovit bench` as a call: what is measured, a run for each model of a suite, kept as soon as it is there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..checkpoint.options import CheckpointOptions
from ..classes.folders import ClassOrder
from ..engines.registry import for_checkpoints, is_exported
from ..errors import EngineError, EvoVitError, InputError, UnstableMeasurement
from ..machine.facts import physical_cores
from ..recipes import recipe_names
from ..storage.missing import no_such_file
from ..storage.ownership import check_not_read
from .answers import answers
from .records import append, check_appendable
from .report import BenchReport
from .session import Options, run
from .settings import Settings, baselines_of
from .suites import Suite, load_suite

__all__ = ["QUICK", "BenchOptions", "Measured", "measure"]

ALL = "all"  # for a backend
# A first look: what `quick` makes of the settings.
QUICK = {"min_seconds": 2.0, "min_calls": 20, "max_seconds": 10.0, "warmup_calls": 10, "warmup_limit": 2.0}


@dataclass(frozen=True)
class BenchOptions:
    """What is measured, and how.

    Attributes:
        model: Checkpoint, ONNX file or engine; with ``random_weights`` a recipe. The baseline resembles it.
        others: More model files for the same run.
        suite: Name or TOML file: models, a run each, unless there is a model, and the settings.
        baseline: ``auto``, ``none``, one of :data:`.settings.KINDS` or a file, or several between commas; None is
            ``auto``, or what the suite says.
        random_weights: ``model``, or the recipe or ViT of timm of ``checkpoint``, is measured with random weights.
        checkpoint: How a checkpoint is understood.
        precision: Of checkpoints and recipes; None is FP32.
        input: Likewise ``float32`` or ``uint8``; None is uint8 on a GPU, unless a file beside them has its own, else float32.
        backend, provider, threads: What they run on; ``threads`` None is one for each core. Backend ``all`` is each that works
            here, a run each.
        settings: Fields of :class:`Settings` that overrule the suite's; None counts as not given.
        quick: A first look, shorter and without what the machine reaches.
        images: See :func:`.images.choose_images`.
        labels: File with class names for accuracy.
        class_order: How training numbered the class folders; None goes by their names.
        preprocess: Measure reading and transforming image files too.
        record: JSON Lines file that every report is appended to.
        force: Append to it whatever it holds.
        command: For the record.
    """

    model: str | None = None
    others: tuple[Path, ...] = ()
    suite: str | None = None
    baseline: str | None = None
    random_weights: bool = False
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    precision: str | None = None
    input: str | None = None
    backend: str = "auto"
    provider: str = "auto"
    threads: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    images: str = "sample"
    labels: Path | None = None
    class_order: ClassOrder | None = None
    preprocess: bool = False
    record: Path | None = None
    force: bool = False
    command: str = ""

    def __post_init__(self) -> None:
        if self.baseline is not None:
            baselines_of(self.baseline)
        if self.random_weights:
            named = self.checkpoint.recipe is not None or self.checkpoint.from_timm is not None
            if (self.model is not None) == named:
                raise InputError(
                    "--random-weights needs one recipe, or --from-timm NAME: evovit bench evo_deit_small_patch16_224 "
                    "--random-weights"
                )
            return
        if self.model is not None and self.model in recipe_names() and not Path(self.model).is_file():
            raise InputError(f"{self.model} is a recipe. Give a checkpoint or an ONNX file, or add --random-weights.")
        exported = bool(self.files) and all(map(is_exported, self.files))
        if self.backend == ALL and (exported or self.others):
            raise InputError(
                f"--backend {ALL} is for one checkpoint or recipe, of which each backend makes what it runs; "
                f"{self.files[0].name} is made for one already. Leave it out, or give more files with --engine."
            )
        if self.precision is not None and exported:
            raise InputError(
                f"--precision {self.precision} is for checkpoints and recipes; {self.files[0].name} has the precision it was "
                f"exported with. Export it again: evovit export CKPT --precision {self.precision}"
            )
        if self.input is not None and exported:
            raise InputError(
                f"--input {self.input} is for checkpoints and recipes; {self.files[0].name} has the input it was exported with. "
                f"Export it again: evovit export CKPT --input {self.input}"
            )
        if exported and self.checkpoint.recipe is not None:
            raise InputError(f"--recipe is for checkpoints, and {self.files[0].name} has it fixed. Leave it out.")
        if self.model is None or is_exported(self.model):
            self.checkpoint.refuse_for(self.files[0] if self.files else Path("a suite"))
        if not self.files and self.suite is None:
            raise InputError(
                "nothing to measure: give an ONNX file, a checkpoint, a recipe with --random-weights, or --suite."
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """Model files that are given."""
        return (*([] if self.model is None else [Path(self.model)]), *self.others)

    def runs(self) -> list[Options]:
        """Return what is measured, run by run.

        Raises:
            InputError: Settings that do not go together.
            RecipeError: No such suite, or a broken one.
        """
        suite = None if self.suite is None else load_suite(self.suite)
        common = Options(
            others=self.others,
            baseline=self.baseline or "auto",
            backend=self.backend,
            provider=self.provider,
            threads=self.threads or physical_cores(),
            precision=self.precision,
            input=self.input,
            settings=self._settings(suite),
            batches_given=self.settings.get("batches") is not None or suite is not None,
            images=self.images,
            labels=self.labels,
            class_order=self.class_order,
            preprocess=self.preprocess,
            peaks=not self.quick,
            command=self.command,
            suite="" if suite is None else suite.name,
        )
        if self.backend == ALL:
            return [
                dataclasses.replace(one, backend=name) for name in self.usable[0] for one in self._of(common, suite)
            ]
        return self._of(common, suite)

    @cached_property
    def usable(self) -> tuple[tuple[str, ...], dict[str, str]]:
        """Backends that ``all`` means on this machine; and of the others, why not."""
        from ..machine.probing import probe_imports

        return for_checkpoints(probe_imports(), self.provider)

    def _of(self, common: Options, suite: Suite | None) -> list[Options]:
        """A run for each model."""
        if self.random_weights:
            asked = self.checkpoint
            return [
                dataclasses.replace(
                    common, checkpoint=asked if self.model is None else dataclasses.replace(asked, recipe=self.model)
                )
            ]
        if self.model is not None:
            return [dataclasses.replace(common, model=Path(self.model), checkpoint=self.checkpoint)]
        if self.others or suite is None:
            return [common]
        return [
            dataclasses.replace(
                common,
                checkpoint=CheckpointOptions(g.recipe),
                selections=g.selections,
                baseline=self.baseline or g.baseline,
            )
            for g in suite.groups
        ]

    def _settings(self, suite: Suite | None) -> Settings:
        """The suite's or the default settings, shortened for a first look, overruled by what was given."""
        given = {name: value for name, value in self.settings.items() if value is not None}
        base = Settings() if suite is None else suite.settings
        values: dict[str, Any] = {**dataclasses.asdict(base), **(QUICK if self.quick else {}), **given}
        if "max_seconds" not in given:  # longer measurements are not cut off by a limit that was meant for shorter ones
            values["max_seconds"] = max(values["max_seconds"], 3 * given.get("min_seconds", 0))
        return Settings(**values)


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        reports: One a run, until an error or an interruption.
        failure: The error that ended it, if one did.
        left_out: Backend -> why it was not measured, where all of them were asked for.
    """

    reports: tuple[BenchReport, ...]
    failure: BaseException | None
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return bool(self.reports) and self.reports[-1].interrupted

    def check_settled(self) -> None:
        """Raise UnstableMeasurement unless every measurement settled."""
        unstable = [f"{point.subject} at batch {point.batch}" for report in self.reports for point in report.unstable]
        if unstable:
            raise UnstableMeasurement(
                f"the measurement did not settle: {', '.join(unstable)}. Close other programs, give it longer "
                f"(--min-seconds 30), or fewer threads (--threads)."
            )

    def to_dict(self, budget_ms: float | None = None) -> dict[str, Any]:
        """Return a JSON-ready form: the report with its answers, or a list of them for a suite.

        Args:
            budget_ms: Latency to pick a batch for, milliseconds.
        """
        runs = [
            {**report.to_dict(), "answers": [dataclasses.asdict(answer) for answer in answers(report, budget_ms)]}
            for report in self.reports
        ]
        suite = self.reports[0].suite
        return runs[0] if len(runs) == 1 and not suite else {"suite": suite, "runs": runs}


def measure(options: BenchOptions, tell: Callable[[float, str], None] = lambda share, text: None) -> Measured:
    """Measure what was asked for; each report goes into the record as soon as it is there.

    Args:
        options: What is measured, and how.
        tell: Called between steps and between measured calls with the share done and what is going on.

    Raises:
        EvoVitError: A mistake that shows before anything is opened. What goes wrong later is ``failure``, as what a suite
            measured until then is not lost.
    """
    runs = options.runs()
    labels, record = options.labels, options.record
    if labels is not None and not labels.exists():  # now, not after a checkpoint was exported
        raise no_such_file(labels, InputError, "It should hold the labels.")
    if record is not None:
        recipe = options.checkpoint.recipe
        against = () if options.baseline is None else baselines_of(options.baseline)
        read = [*options.files, labels, options.suite, recipe if isinstance(recipe, str) else None, *against]
        check_not_read([record], read)
        check_appendable(record, force=options.force)
    reports: list[BenchReport] = []
    left_out = dict(options.usable[1]) if options.backend == ALL else {}
    for number, one in enumerate(runs):

        def told(share: float, text: str, number: int = number, one: Options = one) -> None:
            recipe = None if one.checkpoint is None else one.checkpoint.recipe
            name = one.backend if options.backend == ALL else recipe
            name = f"{name}: " if name is not None and len(runs) > 1 else ""
            tell((number + share) / len(runs), name + text)

        try:
            report = run(one, told)
        except EvoVitError as error:
            if options.backend != ALL:
                return Measured(tuple(reports), error)
            left_out[one.backend] = str(error)  # the others are of interest all the same
            continue
        except KeyboardInterrupt as error:
            return Measured(tuple(reports), error, left_out)
        reports.append(report)
        if record is not None and report.points:
            append(record, report.to_dict())
        if report.interrupted:
            break
    if left_out and not reports:
        reasons = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in left_out.items())
        return Measured((), EngineError(f"no backend could be measured here. {reasons}."), left_out)
    return Measured(tuple(reports), None, left_out)
