"""Files and folders as people name them: '=', blanks, brackets, quotes, letters beyond ASCII, line ends; in every command."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evovit_deploy import ExportOptions, export_onnx, load_checkpoint
from evovit_deploy.errors import InputError
from evovit_deploy.loadtest.ray_faults import prepare_environment
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.packages.options import image_name
from evovit_deploy.serve.settings import ModelSource
from evovit_deploy.storage.files import plain
from evovit_deploy.storage.names import check_name, is_name, label_of, name_of

prepare_environment()  # before any test imports Ray
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
CHECKPOINT = DIGITS / "evo_deit_digits.pth"
AWKWARD = "lr=0.1 [bold]ü'\"日{x}%s"
TWO_LINES = "two\nlines: [red]"
MADE = {AWKWARD: "lr_0.1_bold_u_x_s", TWO_LINES: "two_lines_red"}
Place = tuple[Path, Path, Path]  # model, checkpoint and image

COMMANDS: dict[str, Callable[..., list[Any]]] = {
    "inspect": lambda model, checkpoint, image, out: ["inspect", model],
    "inspect a checkpoint": lambda model, checkpoint, image, out: ["inspect", checkpoint],
    "export": lambda model, checkpoint, image, out: ["export", checkpoint, "-o", f"{out}.onnx", "--no-verify"],
    "verify": lambda model, checkpoint, image, out: ["verify", checkpoint, model],
    "predict": lambda model, checkpoint, image, out: ["predict", model, image.parent],
    "predict one": lambda model, checkpoint, image, out: ["predict", model, image],
    "eval": lambda model, checkpoint, image, out: [
        "eval", model, "--data", image.parent, "--against", checkpoint, "--workers", 0, "-o", f"{out}.csv",
    ],
    "explain": lambda model, checkpoint, image, out: ["explain", model, image, "-o", out],
    "bench": lambda model, checkpoint, image, out: [
        "bench", model, "--baseline", checkpoint, "--batch", 1, "--threads", 1, "--min-seconds", 0.01, "--min-calls", 3,
        "--max-seconds", 0.1, "--warmup", 0, "--record", out, "--images", image.parent,
    ],
    "package container": lambda model, checkpoint, image, out: ["package", "container", model, "-o", out],
    "package kubernetes": lambda model, checkpoint, image, out: [
        "package", "kubernetes", model, "--image", "host/x:1", "-o", out, "--replicas", 1,
    ],
    "package triton": lambda model, checkpoint, image, out: ["package", "triton", model, "-o", out],
    "package ray": lambda model, checkpoint, image, out: ["package", "ray", model, "-o", out],
}  # fmt: skip


@pytest.fixture(scope="module", params=[AWKWARD, TWO_LINES], ids=["awkward", "two lines"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same name for a folder, a model, a checkpoint and a class of images."""
    name: str = request.param
    folder = tmp_path_factory.mktemp("awkward") / name
    image = folder / "images" / "3" / f"{name}.png"
    image.parent.mkdir(parents=True)
    shutil.copy(DIGITS / "test" / "3" / "0045.png", image)
    shutil.copy(CHECKPOINT, folder / f"{name}.pth")
    options = ExportOptions(ModelOptions(outputs=("logits", "kept")), prove=False)
    export_onnx(load_checkpoint(CHECKPOINT), folder / f"{name}.onnx", options)
    return folder / f"{name}.onnx", folder / f"{name}.pth", image


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_it_and_prints_it(
    command: str, place: Place, evovit: Callable[..., Any], tmp_path: Path
) -> None:
    model, _, image = place
    out = tmp_path / model.stem
    code, printed, told = evovit(*COMMANDS[command](*place, out))
    said = printed + told
    if command == "package ray" and "\n" in model.stem:  # Ray opens it on other machines, by a line of YAML
        assert (code, "control character; rename it" in said) == (2, True), said
        return
    assert code == 0, said
    assert model.stem == plain(model.stem) or model.stem not in said
    if command in ("predict", "predict one"):
        assert plain(image.name) in said
    if command not in ("inspect a checkpoint", "verify", "predict one", "predict", "bench"):
        assert plain(model.stem) in said, said
    if command.startswith("package"):
        assert MADE[model.stem] in said
    if command == "package kubernetes":
        documents = list(yaml.safe_load_all(out.read_text()))
        assert {each["kind"] for each in documents} == {"Deployment", "Service", "PodDisruptionBudget"}
    if command == "package triton":
        assert (out / MADE[model.stem] / "1" / "model.onnx").is_file()
    if command == "package container":
        (words,) = re.findall(r"^CMD (.*)$", (out / "Containerfile").read_text(), re.MULTILINE)
        assert json.loads(words)[1] == f"{MADE[model.stem]}=/models/{MADE[model.stem]}.onnx"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_is_not_there_is_named(command: str, evovit: Callable[..., Any], tmp_path: Path) -> None:
    missing = tmp_path / f"{TWO_LINES}.onnx"
    image = DIGITS / "test" / "3" / "0045.png"
    code, printed, told = evovit(*COMMANDS[command](missing, missing.with_suffix(".pth"), image, tmp_path / "out"))
    assert code in (1, 2)
    assert printed == ""
    assert plain(TWO_LINES) in told or " ".join(TWO_LINES.split()) in told
    assert "bug" not in told
    assert not (tmp_path / "out").exists()


def test_serve_takes_a_file_that_exists_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["runs/lr=0.01/x.onnx", "epoch=3-step=100.onnx", "a b.onnx"]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    sources = ModelSource.parse_all([*names, "first=runs/lr=0.01/x.onnx", "first:7=epoch=3-step=100.onnx"])
    assert [(one.name, one.version, str(one.path)) for one in sources] == [
        ("x", "1", names[0]),
        ("epoch_3-step_100", "1", names[1]),
        ("a_b", "1", names[2]),
        ("first", "1", names[0]),
        ("first", "7", names[1]),
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model.onnx", None),
        ("runs/lr=0.01/x.onnx", None),
        ("C:\\runs\\lr=0.01\\x.onnx", None),
        ("./a=b.onnx", None),
        ("a=b.onnx", ("a", "b.onnx")),
        ("a:2=runs/lr=0.01/x.onnx", ("a:2", "runs/lr=0.01/x.onnx")),
        ("a" * 5000, None),
        ("nul\0=x", ("nul\0", "x")),
    ],
)
def test_names_and_files_are_told_apart(text: str, parts: tuple[str, str] | None) -> None:
    assert label_of(text) == parts


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("digits", "digits"),
        ("_a-1.2", "_a-1.2"),
        ("lr=0.01", "lr_0.01"),
        ("epoch=3-step=100", "epoch_3-step_100"),
        ("my model (1)", "my_model_1"),
        ("[bold]x", "bold_x"),
        ("modèle", "modele"),
        ("日本", "model"),
        ("-x", "x"),
        (".hidden", "hidden"),
        ("two\nlines", "two_lines"),
        ("x" * 150, "x" * 100),
        ("...", "model"),
    ],
)
def test_a_stem_becomes_a_name(stem: str, name: str) -> None:
    assert name_of(Path(f"{stem}.onnx")) == name
    assert is_name(name)
    assert re.fullmatch(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", image_name(name))  # what Docker takes


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../x", "-x", ".x", "é", "a=b", "x" * 101, "a\n"])
def test_what_is_no_name_is_refused_with_one_that_is(name: str) -> None:
    with pytest.raises(InputError, match="is not a model name") as caught:
        check_name(name)
    assert is_name(str(caught.value).split()[-1])


def test_two_files_do_not_become_versions_of_a_name_that_neither_has() -> None:
    with pytest.raises(
        InputError, match=r"日本.onnx and 東京.onnx would both be called model. Give a name: NAME=東京.onnx"
    ):
        ModelSource.parse_all(["日本.onnx", "東京.onnx"])
    versions = ModelSource.parse_all(["a/m.onnx", "b/m.onnx"])
    assert [(one.name, one.version) for one in versions] == [("m", "1"), ("m", "2")]


def test_serve_names_both_files_that_were_looked_for(
    evovit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, told = evovit("serve", "epoch=3-step=10.onnx", "--port", 0, "--no-grpc")
    assert code == 2
    assert "error: 3-step=10.onnx: no such file." in told
    assert "Nor is there a file epoch=3-step=10.onnx" in told
