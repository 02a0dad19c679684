"""Arguments and options that several commands share: one spelling, one meaning and one help text for each.

A command takes them as annotations and gives its own default: ``threads: shared.Threads = None``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import _choices as choices
from . import _completion as complete
from ._command import OUTPUT
from ._limits import limit

__all__ = [
    "OUTPUT",
    "Against",
    "Backend",
    "Batch",
    "ClassOrder",
    "Cpus",
    "Device",
    "Drain",
    "Ema",
    "ExportTarget",
    "Force",
    "FromTimm",
    "Gpus",
    "Images",
    "ImgSize",
    "Json",
    "Keep",
    "Labels",
    "MaxBatch",
    "MaxDelayMs",
    "MaxKernels",
    "MaxQueue",
    "MeasuredThreads",
    "Method",
    "MinBatch",
    "Model",
    "NumHeads",
    "OptBatch",
    "Profile",
    "Provider",
    "R",
    "RayAddress",
    "Recipe",
    "Record",
    "Replicas",
    "RequireFusedAttention",
    "Restart",
    "Schedule",
    "ServedBatch",
    "Target",
    "Threads",
    "TimmWeights",
    "Workers",
]

# Panels of the help; a command with more than six options sorts them into these and its own.
CHECKPOINT, TIMM, DATA, RUN = "Checkpoint", "A plain ViT of timm", "Data", "Run"
BATCHING, LIMITS, ENGINE, RAY = "Batching", "Limits", "Engine", "On Ray"

# What is read.
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Checkpoint, ONNX file or TensorRT engine.")]
Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGES", help="Image files, or folders that are searched for images.")
]
Against = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Second model for the same images: FP32 reference, vanilla twin, ...", rich_help_panel=DATA
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Class names: a text file with one per line, or JSON.",
        rich_help_panel=DATA,
    ),
]
ClassOrder = Annotated[
    choices.ClassOrder,
    typer.Option(
        help="How training numbered the class folders: text (torchvision's ImageFolder: 1, 10, 2) or natural (timm's own reader: "
        "1, 2, 10). auto: by label, else by number, else text.",
        rich_help_panel=DATA,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Processes that decode images. Default: one per CPU, at most 8.",
        rich_help_panel=RUN,
    ),
]

# How a checkpoint is understood.
Recipe = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        autocompletion=complete.recipes,
        help="Recipe of a checkpoint: a name (see `evovit list recipes`) or a TOML file.",
        rich_help_panel=CHECKPOINT,
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        metavar="0.7,0.5",
        help="Keep ratios: one for all stages (of EViT: places), or one for each.",
        rich_help_panel=CHECKPOINT,
    ),
]
R = Annotated[
    str | None,
    typer.Option(
        "--r",
        metavar="8|8,-1|8,8,4",
        help="Tokens merged a block, of a method that merges: in every block; with a slope (-1: from twice as many down to "
        "none); or one number per block.",
        rich_help_panel=CHECKPOINT,
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        metavar="stage|layer",
        autocompletion=complete.schedules,
        help="Where patches are selected: stage as published, or layer.",
        rich_help_panel=CHECKPOINT,
    ),
]
NumHeads = Annotated[
    int | None,
    typer.Option(metavar="N", help="Attention heads, if the checkpoint does not say.", rich_help_panel=CHECKPOINT),
]
Ema = Annotated[
    bool,
    typer.Option("--ema", help="Use the averaged weights (model_ema) of a checkpoint.", rich_help_panel=CHECKPOINT),
]
ImgSize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS", help="Image size; the position embedding is resized to it.", rich_help_panel=CHECKPOINT
    ),
]
FromTimm = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Put a method on this ViT of timm (see `evovit list timm`).",
        rich_help_panel=TIMM,
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        parser=choices.one_of("METHOD"),
        metavar="METHOD",
        autocompletion=complete.methods,
        help="What is put on it; of a checkpoint, how it was trained, if it does not say. Default: evo.",
        rich_help_panel=TIMM,
    ),
]
TimmWeights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Weights of --from-timm, in timm's names. Default: random.", rich_help_panel=TIMM
    ),
]

# Where and how it runs.
Provider = Annotated[
    str,
    typer.Option(
        parser=choices.one_of("PROVIDER"),
        metavar="PROVIDER",
        autocompletion=complete.providers,
        help="auto: CUDA where a GPU can be used, else the CPU.",
        rich_help_panel=RUN,
    ),
]
BACKEND = {"parser": choices.one_of("BACKEND"), "metavar": "BACKEND", "autocompletion": complete.backends}
Backend = Annotated[str, typer.Option(**BACKEND, help="auto: chosen by the file's suffix.", rich_help_panel=RUN)]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPU threads per operator. Default: the backend's.", rich_help_panel=RUN),
]
MeasuredThreads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPU threads per operator. Default: one per core.", rich_help_panel=RUN),
]
Batch = Annotated[int, typer.Option(min=1, metavar="N", help="Images per run.", rich_help_panel=RUN)]
Restart = Annotated[
    bool, typer.Option("--restart", help="Start over instead of resuming an interrupted run.", rich_help_panel=RUN)
]

# How the service collects requests.
ServedBatch = Annotated[int | None, limit("max_batch", BATCHING)]
MaxDelayMs = Annotated[float, limit("max_delay_ms", BATCHING)]
MaxQueue = Annotated[int, limit("max_queue", LIMITS)]
Drain = Annotated[float, limit("drain", LIMITS)]

# What is built.
Target = Annotated[
    choices.Target | None,
    typer.Option(
        metavar="TARGET",
        help="tensorrt or tensorrt-rtx. auto: TensorRT where it and a GPU are found, else TensorRT-RTX.",
        rich_help_panel=ENGINE,
    ),
]
ExportTarget = Annotated[
    choices.ExportTarget | None,
    typer.Option(
        metavar="TARGET",
        help="tensorrt, tensorrt-rtx, or inductor: PyTorch, compiled. auto: TensorRT where it and a GPU are found, else "
        "TensorRT-RTX.",
        rich_help_panel=ENGINE,
    ),
]
Device = Annotated[
    choices.Device | None,
    typer.Option(
        metavar="cpu|cuda",
        help="inductor only: compile for it. Default: a GPU if there is one.",
        rich_help_panel=ENGINE,
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        autocompletion=complete.profiles,
        help="Build profile: a name such as h100 or l4 (see `evovit list profiles`), or a TOML file.",
        rich_help_panel=ENGINE,
    ),
]
MinBatch = Annotated[int | None, typer.Option(metavar="N", help="Smallest batch. Default: 1.", rich_help_panel=ENGINE)]
OptBatch = Annotated[
    int | None, typer.Option(metavar="N", help="Batch to tune for. Default: 8.", rich_help_panel=ENGINE)
]
MaxBatch = Annotated[int | None, typer.Option(metavar="N", help="Largest batch. Default: 64.", rich_help_panel=ENGINE)]
RequireFusedAttention = Annotated[
    bool,
    typer.Option(
        "--require-fused-attention", help="Exit 3 unless every attention is one kernel.", rich_help_panel=ENGINE
    ),
]
MaxKernels = Annotated[
    int | None, typer.Option(metavar="N", help="Exit 3 if the plan has more kernels.", rich_help_panel=ENGINE)
]

# On Ray.
RayAddress = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Ray cluster. local: start one here. auto: the one that runs here. Or HOST:PORT.",
        rich_help_panel=RAY,
    ),
]
Cpus = Annotated[float, typer.Option(min=0, metavar="N", help="CPUs per replica.", rich_help_panel=RAY)]
Gpus = Annotated[float, typer.Option(min=0, metavar="N", help="GPUs per replica.", rich_help_panel=RAY)]

Replicas = Annotated[
    str,
    typer.Option(
        metavar="N|MIN-MAX",
        help="Copies of the service: a number, or a range that follows the load.",
        rich_help_panel=RAY,
    ),
]

# What is written.
Record = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Append the result to this JSON Lines file.", rich_help_panel=OUTPUT),
]
# The same in every command that writes. Without it all but `evovit package` replace what they wrote themselves.
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Replace files that are there, also those evovit did not write.", rich_help_panel=OUTPUT
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=OUTPUT)]
