"""A backend is one row: one that is registered here, with a file format of its own, works in every command, and then is gone."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from evovit_deploy import Engine, TorchEngine, doctor
from evovit_deploy.cli import _completion
from evovit_deploy.describe import describe
from evovit_deploy.engines import registry
from evovit_deploy.engines.registry import Backend, Sealed
from evovit_deploy.errors import EngineError, InputError, ModelFileError
from evovit_deploy.manifest.spec import ModelSpec
from evovit_deploy.packages import ServiceOptions, read_contents
from evovit_deploy.packages.requirements import requirements
from evovit_deploy.recipes import Transform
from evovit_deploy.serve.documents import model_metadata
from evovit_deploy.serve.metrics import Metrics
from evovit_deploy.serve.repository import ModelRepository
from evovit_deploy.serve.settings import ModelSource, ServiceSettings
from tests.cli.test_bench import MICRO, SHORT
from tests.engines.foreign_onnx import CLASSES, SIZE, make_onnx

Evovit = Callable[..., tuple[int, str, str]]


class SumEngine(Engine):
    """Scores are weighted sums of the channels."""

    backend, device = "sum", "cpu"

    def __init__(self, path: Path, halved: bool = False) -> None:
        try:
            document = json.loads(path.read_text())
            self.weights = np.array(document["weights"], np.float32) / (2 if halved else 1)
        except (ValueError, LookupError) as error:
            raise ModelFileError(f"{path} is no file of sums: {error}.") from error
        classes = self.weights.shape[1]
        self.spec = ModelSpec(path.stem, document["size"], "float32", classes, ("logits",), transform=Transform())

    def run(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"logits": images.sum(axis=(2, 3), dtype=np.float32) @ self.weights}


def open_sum(path: Path, *, provider: str, threads: int | None, halved: bool = False) -> SumEngine:
    if provider not in ("auto", "cpu"):
        raise EngineError(f"{path} runs on the CPU only.")
    return SumEngine(path, halved)


def make(engine: TorchEngine, path: Path, batches: tuple[int, ...]) -> None:
    size = engine.spec.image_size
    path.write_text(json.dumps({"size": size, "weights": np.ones((3, engine.spec.num_classes)).tolist()}))


@pytest.fixture
def row() -> Iterator[Backend]:
    """The whole of it."""
    sums = Backend(
        name="sum",
        description="sums, by numpy",
        kind="engine",
        files="files of sums",
        suffixes=(".sum",),
        open=open_sum,
        module="numpy",
        accepts=("halved",),
        providers=("cpu",),
        make=make,
    )
    registry.register(sums)
    yield sums
    registry.unregister("sum")
    assert "sum" not in registry.names()


@pytest.fixture
def files(row: Backend, tmp_path: Path) -> tuple[Path, Path]:
    """The same function in an ONNX file and in a file of the backend."""
    exported, sums = make_onnx(tmp_path / "m.onnx"), tmp_path / "m.sum"
    model = onnx.load(exported)
    matrix = next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "w")
    for value in (*model.graph.output, *(node for node in model.graph.node if node.op_type == "MatMul")):
        if isinstance(value, onnx.NodeProto):
            value.output[0] = "logits"
        else:
            value.name = "logits"
    onnx.save(model, exported)
    sums.write_text(json.dumps({"size": SIZE, "weights": (matrix / SIZE**2).tolist()}))
    return exported, sums


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of images, two of each."""
    random = np.random.default_rng(0)
    for number in range(4):
        folder = tmp_path / "photos" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def test_engine_open(files: tuple[Path, Path]) -> None:
    exported, sums = files
    images = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    with Engine.open(exported, provider="cpu") as reference, Engine.open(sums) as engine:
        assert isinstance(engine, SumEngine)
        np.testing.assert_allclose(engine(images)["logits"], reference(images)["logits"], atol=1e-5)
    with Engine.open(sums, backend="sum", halved=True) as halved, Engine.open(sums) as engine:
        np.testing.assert_allclose(2 * halved(images)["logits"], engine(images)["logits"], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.sum", {"recipe": "evo_deit_tiny_patch16_224"}, "opened with sum, and recipe is for checkpoints only"),
        ("m.onnx", {"halved": True}, "opened with onnxruntime, and halved is for files of sums only"),
        ("m.onnx", {"halve": True}, r"has no option 'halve'\. Did you mean 'halved'"),
        ("m.onnx", {"backend": "sum"}, "m.onnx is for onnxruntime, going by its name, and sum cannot run it"),
        ("m.sum", {"backend": "pytorch"}, "m.sum is for sum, going by its name, and pytorch cannot run it"),
    ],
)
def test_what_does_not_go_together_is_refused(
    files: tuple[Path, Path], name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Engine.open(files[0].with_name(name), **options)


def test_names_are_taken_once(row: Backend) -> None:
    for name in ("sum", "auto", "torch.compile"):
        with pytest.raises(InputError, match=f"a backend '{name}' already"):
            registry.register(Backend(name, "", "engine", "", (), open_sum, "numpy"))


def test_a_shared_suffix_has_one_backend_by_default_whatever_the_order(row: Backend) -> None:
    """Modules are imported in the order of their names, which must not decide what runs a user's file."""
    late = dataclasses.replace(row, name="late")
    with pytest.raises(
        InputError, match=r"sum and late both open \.sum by default; register one with by_default=False"
    ):
        registry.register(late)
    registry.unregister("sum")
    registry.register(dataclasses.replace(late, by_default=False))
    registry.register(row)
    try:
        assert registry.opener("m.sum") is registry.backend_of("m.sum") is row
        assert registry.opener("m.sum", "late").name == "late"
    finally:
        registry.unregister("late")


@pytest.mark.parametrize(
    ("file", "backend"),
    [("m.onnx", "onnxruntime"), ("m.pth", "pytorch"), ("m.engine", "tensorrt"), ("m", "onnxruntime")],
)
def test_what_opens_a_file_by_default(file: str, backend: str) -> None:
    assert registry.opener(file).name == backend


def test_the_command_line_offers_it(row: Backend, evovit: Evovit) -> None:
    for command in ("predict", "bench", "sweep"):
        code, out, _ = evovit(command, "--help")
        assert code == 0
        assert "|inductor|sum" in out
    assert _completion.backends("s") == ["sum"]
    code, out, _ = evovit("list", "backends", "sum", "--json")
    assert json.loads(out)["backends"] == [
        {"name": "sum", "files": ".sum", "installed": np.__version__, "description": "sums, by numpy"}
    ]
    code, _, err = evovit("predict", "m.sum", "x.png", "--backend", "sums")
    assert code == 2
    assert "Did you mean 'sum'?" in err


def test_verify_proves_it(files: tuple[Path, Path], evovit: Evovit) -> None:
    code, out, err = evovit("verify", *files, "--json", "--provider", "cpu")
    assert code == 0, err
    assert json.loads(out)["passed"]
    document = json.loads(files[1].read_text())
    document["weights"][0][0] += 1
    files[1].write_text(json.dumps(document))
    code, _, err = evovit("verify", *files, "--provider", "cpu")
    assert code == 3
    assert "m.sum is not the same function as" in err


def test_predict_and_eval_run_it(files: tuple[Path, Path], photos: Path, evovit: Evovit) -> None:
    exported, sums = files
    answers = []
    for model, backend in ((sums, "sum"), (exported, "onnxruntime")):
        code, out, err = evovit("predict", model, photos, "--backend", backend, "--provider", "cpu", "--json")
        assert code == 0, err
        document = json.loads(out)
        assert document["backend"] == backend
        answers.append([image["top"][0]["class"] for image in document["results"]])
    assert answers[0] == answers[1]
    code, out, err = evovit("eval", sums, "--data", photos, "--against", exported, "--json", "--provider", "cpu")
    assert code == 0, err
    assert json.loads(out)["comparison"]["agreement"]["hits"] == 4


def test_bench_compares_it(files: tuple[Path, Path], evovit: Evovit) -> None:
    exported, sums = files
    code, out, err = evovit("bench", sums, "--baseline", exported, "--batch", "1", *SHORT, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [subject["backend"] for subject in document["subjects"]] == ["sum", "onnxruntime"]
    assert document["points"][0]["speedup"]["against"] == document["baseline"]
    code, _, err = evovit("bench", exported, "--backend", "sum", *SHORT)
    assert code == 2
    assert "m.onnx is for onnxruntime, and --backend sum runs files of sums. Leave --backend out." in err


def test_bench_makes_its_files_of_a_checkpoint_and_its_twin(row: Backend, tmp_path: Path, evovit: Evovit) -> None:
    (tmp_path / "evo_micro.toml").write_text(MICRO)
    words = ("bench", tmp_path / "evo_micro.toml", "--random-weights", "--batch", "1", *SHORT)
    code, out, err = evovit(*words, "--backend", "sum", "--json")
    assert code == 0, err
    subjects = json.loads(out)["subjects"]
    assert [subject["backend"] for subject in subjects] == ["sum", "sum"]
    assert all(subject["facts"]["macs"] for subject in subjects)
    registry.unregister("sum")
    registry.register(Backend("sum", "", "engine", "files of sums", (".sum",), open_sum, "numpy"))
    code, _, err = evovit(*words, "--backend", "sum")
    assert code == 2
    assert "--backend sum runs files of sums and makes none from a checkpoint" in err


def test_the_service_opens_it(files: tuple[Path, Path]) -> None:
    models = ModelRepository(ModelSource.parse_all([f"m={files[1]}"]), ServiceSettings(), Metrics())
    models.load_all()
    try:
        served = models.find("m")
        assert model_metadata(served, ["1"])["platform"] == "sum"
        images = np.ones((2, 3, SIZE, SIZE), np.float32)
        assert served.batcher.submit(images).result(60)["logits"].shape == (2, CLASSES)
    finally:
        models.close(1.0)


def test_doctor_lists_it(row: Backend) -> None:
    found = {entry.name: entry for entry in doctor.examine({}).findings}
    assert (found["backend sum"].status, found["backend sum"].value) == ("ok", f"numpy {np.__version__}, on cpu")
    found = {entry.name: entry for entry in doctor.examine({"numpy": {"state": "missing"}}).findings}
    assert found["backend sum"].status == "missing"
    assert "numpy is not installed" in found["backend sum"].value


def test_inspect_and_package_say_what_they_know(files: tuple[Path, Path], evovit: Evovit) -> None:
    assert describe(files[1])["kind"] == "sum"
    code, out, _ = evovit("inspect", files[1])
    assert code == 0
    assert "sha256" in out
    with pytest.raises(InputError, match="is for sum, whose files cannot be packaged"):
        read_contents(files[1])


def test_a_file_with_a_manifest_is_packaged(files: tuple[Path, Path], row: Backend, tmp_path: Path) -> None:
    manifest = tmp_path / "m.sum.json"
    registry.unregister("sum")
    registry.register(dataclasses.replace(row, sealed=lambda path: Sealed(manifest, "sum", "2.0", 8, CLASSES, False)))
    contents = read_contents(files[1])
    assert (contents.backend, contents.max_batch, contents.gpu_only) == ("sum", 8, False)
    assert ServiceOptions().files(contents) == {"m.sum": files[1], "m.sum.json": manifest}
    wheel = tmp_path / "w.whl"
    wheel.touch()
    assert "numpy==2.0" in requirements(wheel, gpu=False, engine=("sum", "2.0"))


def test_another_package_adds_one_and_a_broken_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def point(name: str, value: str) -> importlib.metadata.EntryPoint:
        return importlib.metadata.EntryPoint(name, value, registry.ENTRY_POINTS)

    points = [point("plain", "tests.engines.plain_backend"), point("gone", "no_such_module_of_anyone")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    monkeypatch.setattr(registry, "_asked", False)
    monkeypatch.setattr(registry, "_broken", {})
    try:
        assert "plain" in registry.names()
        broken = {entry.name: entry for entry in doctor.examine({}).findings if entry.status == "broken"}
        assert "no_such_module_of_anyone cannot be loaded" in broken["backend gone"].value
    finally:
        registry.unregister("plain")
        sys.modules.pop("tests.engines.plain_backend", None)
