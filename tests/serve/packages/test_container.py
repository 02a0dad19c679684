"""The folder of a container, and its command, run in this environment with only what the container would have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from evovit_deploy.cli import app
from evovit_deploy.errors import EvoVitError, InputError, ModelFileError, OutputError
from evovit_deploy.loadtest.process import serving
from evovit_deploy.packages.container import container
from evovit_deploy.packages.contents import read_contents
from evovit_deploy.packages.options import ServiceOptions
from evovit_deploy.packages.requirements import requirements

from ..conftest import DIGITS

WHEEL = f"evovit_deploy-{metadata.version('evovit-deploy')}-py3-none-any.whl"
LABELS = DIGITS / "labels.txt"
# Blocks what the container has not: every module that comes only from distributions that are not on the list.
ONLY = """
import sys
from importlib.metadata import packages_distributions

listed = set(sys.argv.pop(1).split(","))
lacking = {
    module for module, names in packages_distributions().items()
    if not listed & {name.lower().replace("_", "-") for name in names}
}

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in lacking:
            raise ModuleNotFoundError(f"No module named {name!r} in the container", name=name)

sys.meta_path.insert(0, Lacking())
from evovit_deploy.cli import main
main()
"""


def invoke(*words: object) -> Any:
    return CliRunner().invoke(app, ["package", "container", *map(str, words)], catch_exceptions=True)


def lines(folder: Path, word: str) -> list[str]:
    """What follows an instruction of the container file."""
    text = (folder / "Containerfile").read_text()
    return re.findall(rf"^{word} (.*)$", text, re.MULTILINE)


def needed(folder: Path) -> dict[str, Requirement]:
    text = (folder / "requirements.txt").read_text().splitlines()
    found = [Requirement(line) for line in text if not line.startswith("#")]
    return {canonicalize_name(each.name): each for each in found}


@pytest.fixture
def digits_folder(digits_model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    container(read_contents(digits_model, LABELS), folder, ServiceOptions(threads=1))
    return folder


def test_what_is_in_it(digits_folder: Path, digits_model: Path) -> None:
    names = {path.name for path in digits_folder.iterdir()}
    assert names == {"Containerfile", "requirements.txt", ".dockerignore", "digits.onnx", "labels.txt", WHEEL}
    assert (digits_folder / "digits.onnx").read_bytes() == digits_model.read_bytes()
    copied = {word for line in lines(digits_folder, "COPY") for word in json.loads(line[line.index("[") :])[:-1]}
    ignored, *kept = (digits_folder / ".dockerignore").read_text().split()
    assert ignored == "*"
    assert {name.removeprefix("!") for name in kept} == copied == names - {"Containerfile", ".dockerignore"}
    (user,) = lines(digits_folder, "USER")
    assert user.isdigit()
    assert user != "0"
    assert user in lines(digits_folder, "RUN")[0]


def test_requirements_are_pinned_to_what_is_here_and_leave_torch_out(digits_folder: Path) -> None:
    found = needed(digits_folder)
    assert not {"torch", "torchvision", "timm", "onnxruntime-gpu"} & set(found)
    assert found.pop("onnxruntime").specifier.contains(metadata.version("onnxruntime-gpu"))
    own = found.pop("evovit-deploy")
    assert own.url == f"file:///tmp/{WHEEL}#sha256={sha256((digits_folder / WHEEL).read_bytes()).hexdigest()}"
    for name, requirement in found.items():
        assert str(requirement.specifier) == f"=={metadata.version(name)}"


def test_what_is_not_installed_here_is_listed_without_a_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As on a Mac, which has no onnxruntime-gpu, or on Windows, which has no uvloop."""
    real = metadata.distribution

    def distribution(name: str) -> metadata.Distribution:
        if name in ("onnxruntime-gpu", "uvloop"):
            raise metadata.PackageNotFoundError(name)
        return real("onnxruntime-gpu" if name == "onnxruntime" else name)

    wheel = tmp_path / "evovit_deploy-9.9-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    everything = requirements(wheel, gpu=False)
    monkeypatch.setattr(metadata, "distribution", distribution)
    found = requirements(wheel, gpu=False)
    assert [line for line in found if line not in everything] == ["uvloop>=0.21"]
    assert len(found) == len(everything)


def test_its_command_serves_with_only_what_is_listed(digits_folder: Path) -> None:
    (command,) = lines(digits_folder, "CMD")
    swaps = {"8000": "0", "8001": "0", "0.0.0.0": "127.0.0.1"}  # other tests have ports too
    words = [swaps.get(word, word).replace("/models/", f"{digits_folder}/") for word in json.loads(command)]
    listed = ",".join([*needed(digits_folder), "onnxruntime-gpu"])  # the same modules as onnxruntime
    with serving([sys.executable, "-c", ONLY, listed, *words]) as service:
        assert service.get("/v2/models/digits/ready")["ready"] is True
        (check,) = lines(digits_folder, "HEALTHCHECK")
        probe = json.loads(check.partition("CMD ")[2].replace("127.0.0.1:8000", service.http))
        assert subprocess.run([sys.executable, *probe[1:]], check=False).returncode == 0
        image = (DIGITS / "test" / "7" / "0081.png").read_bytes()
        assert classify(service.http, image)["top"][0]["label"] == "7"
        service.signal()
        assert service.wait() == 0
    assert subprocess.run([sys.executable, *probe[1:]], check=False, stderr=subprocess.DEVNULL).returncode


def classify(address: str, image: bytes) -> Any:
    from urllib.request import Request, urlopen

    with urlopen(Request(f"http://{address}/v1/classify", image, {"Content-Type": "image/png"}), timeout=30) as answer:
        return json.load(answer)


def test_the_blocker_of_the_test_above_blocks() -> None:
    """Or the list could lack anything."""
    words = [sys.executable, "-c", ONLY, "numpy", "serve", "x.onnx"]
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert ended.returncode
    assert "in the container" in ended.stderr


def test_for_a_gpu(digits_model: Path, tmp_path: Path) -> None:
    container(read_contents(digits_model), tmp_path / "image", ServiceOptions(gpu=True))
    found = needed(tmp_path / "image")
    assert found["evovit-deploy"].extras == {"serve"}
    assert {"torch", "onnxruntime-gpu"} <= set(found)
    assert "onnxruntime" not in found
    words = json.loads(lines(tmp_path / "image", "CMD")[0])
    assert words[words.index("--provider") + 1] == "cuda"


@pytest.mark.parametrize(
    ("tag", "flavour", "extra"), [(b"ftrt", "tensorrt", "tensorrt"), (b"vtrt", "tensorrt-rtx", "rtx")]
)
def test_a_plan(plan: Callable[..., Path], tmp_path: Path, tag: bytes, flavour: str, extra: str) -> None:
    path = plan(tag)
    folder = tmp_path / "image"
    container(read_contents(path), folder, ServiceOptions(name="m"))
    assert (folder / "m.engine").read_bytes() == path.read_bytes()
    assert (folder / "m.engine.json").is_file()
    found = needed(folder)
    assert found["evovit-deploy"].extras == {"serve", extra}
    assert str(found[flavour].specifier) == "==10.13.0.1"
    assert "--provider" not in lines(folder, "CMD")[0]
    with pytest.raises(InputError, match="up to 64"):
        container(read_contents(path), folder, ServiceOptions(max_batch=65), force=True)


def test_a_wheel(digits_model: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "evovit_deploy-9.9-py3-none-any.whl"
    with pytest.raises(InputError, match="no such file"):
        container(read_contents(digits_model), tmp_path / "image", ServiceOptions(), wheel=wheel)
    wheel.write_bytes(b"wheel")
    container(read_contents(digits_model), tmp_path / "image", ServiceOptions(), wheel=wheel)
    digest = sha256(b"wheel").hexdigest()
    assert needed(tmp_path / "image")["evovit-deploy"].url == f"file:///tmp/{wheel.name}#sha256={digest}"
    assert (tmp_path / "image" / wheel.name).read_bytes() == b"wheel"
    assert wheel.name in lines(tmp_path / "image", "COPY")[0]
    (tmp_path / "torch-1.whl").touch()
    with pytest.raises(InputError, match="not a wheel of evovit-deploy"):
        container(read_contents(digits_model), tmp_path / "other", ServiceOptions(), wheel=tmp_path / "torch-1.whl")
    assert not (tmp_path / "other").exists()


def test_nothing_is_overwritten_unless_told(digits_folder: Path, digits_model: Path) -> None:
    (digits_folder / "mine").write_text("mine")
    before = {path.name: path.read_bytes() for path in digits_folder.iterdir()}
    contents = read_contents(digits_model, LABELS)
    with pytest.raises(OutputError, match="--force"):
        container(contents, digits_folder, ServiceOptions(max_queue=7))
    assert {path.name: path.read_bytes() for path in digits_folder.iterdir()} == before
    container(contents, digits_folder, ServiceOptions(max_queue=7), force=True)
    after = {path.name: path.read_bytes() for path in digits_folder.iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"Containerfile"}


def test_the_command_line(digits_model: Path, tmp_path: Path) -> None:
    words = [digits_model, "-o", tmp_path / "image", "--labels", LABELS, "--model-name", "d", "--drain", "5", "--json"]
    document = json.loads(invoke(*words).stdout)
    assert document["model"] == "d"
    digest = sha256((tmp_path / "image" / WHEEL).read_bytes()).hexdigest()
    assert document["wheel"] == {"file": WHEEL, "version": metadata.version("evovit-deploy"), "sha256": digest}
    assert document["command"] == ["evovit", *json.loads(lines(tmp_path / "image", "CMD")[0])]
    assert all(Path(file).is_file() for file in document["files"])
    assert isinstance(invoke(*words).exception, OutputError)
    assert isinstance(invoke(digits_model, "-o", tmp_path / "a" / "b").exception, OutputError)


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        ([DIGITS / "evo_deit_digits.pth"], InputError, "evovit export"),
        (["missing.onnx"], ModelFileError, "no such file"),
        (["{model}", "--labels", "{two}"], InputError, "2 names"),
        (["{model}", "--model-name", "a b"], InputError, "not a model name"),
        (["{model}", "--drain", "inf"], InputError, "drain"),
        (["{model}", "--template", "{bad}"], InputError, "line 2"),
        (["{model}", "--template", "{unknown}"], InputError, "may use: arguments"),
        (["{model}", "--template", "missing.j2"], InputError, "no such file"),
    ],
)  # fmt: skip
def test_refused_with_nothing_left(
    digits_model: Path, tmp_path: Path, words: list[Any], error: type[EvoVitError], text: str
) -> None:
    files = {"two": "a\nb\n", "bad": "x\n{% if %}\n", "unknown": "{{ nothing }}"}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    places = {name: tmp_path / name for name in files} | {"model": digits_model}
    result = invoke(*(str(word).format(**places) for word in words), "-o", tmp_path / "image")
    assert isinstance(result.exception, error)
    assert text in str(result.exception)
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_a_template_of_ones_own(digits_model: Path, tmp_path: Path) -> None:
    template = tmp_path / "mine.j2"
    template.write_text("FROM mine\n{% include 'Containerfile.j2' %}")
    container(read_contents(digits_model), tmp_path / "image", ServiceOptions(), template=template)
    text = (tmp_path / "image" / "Containerfile").read_text()
    assert text.startswith("FROM mine\n# Written by")
