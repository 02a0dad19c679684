"""The way from a model to a running engine, and the same way for its twin."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from evovit_deploy.bench import route as routes
from evovit_deploy.bench.route import Route
from evovit_deploy.bench.runs import BenchOptions
from evovit_deploy.bench.session import Options
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines import Engine, FakeEngine
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.errors import EngineError, InputError
from evovit_deploy.export import ExportOptions, export_onnx
from evovit_deploy.models.options import ModelOptions
from tests.bench.made import MICRO
from tests.engines.fake_trt import write_plan


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = ExportOptions(
        ModelOptions("fp16", "uint8", outputs=("logits", "probabilities", "kept"), fold=False), opset=21, prove=False
    )
    return export_onnx(random_checkpoint(MICRO), tmp_path_factory.mktemp("onnx") / "evo.onnx", options).path


def test_facts_of_a_file(exported: Path) -> None:
    found = Route(provider="cpu", threads=1, batches=(1, 2)).open_file(exported)
    facts = found.subject.facts
    with found.engine:
        assert found.subject.device == "cpu"
    assert facts.model_sha256 is not None
    assert len(facts.model_sha256) == 64
    assert facts.load_ms is not None
    assert facts.first_ms is not None
    assert facts.macs is not None


def test_the_twin_takes_the_route_of_its_model(exported: Path, tmp_path: Path) -> None:
    route = Route(provider="cpu", threads=1, batches=(1, 2))
    engine = route.open_file(exported).engine
    with engine:
        twin = route.like(engine).open_vanilla("twin", MICRO, tmp_path).engine
    with twin:
        manifest = twin.spec.manifest
        assert manifest is not None
        assert (manifest["precision"], manifest["input"], manifest["opset"]) == ("fp16", "uint8", 21)
        assert manifest["folded"] is False
        assert twin.spec.outputs == ("logits", "probabilities")
        assert (twin.backend, twin.device) == (engine.backend, engine.device)


@pytest.mark.parametrize("backend", ["pytorch", "compile"])
def test_pytorch_twins(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr("torch.compile", lambda module, **options: compiled.append(options) or module)
    options = ExportOptions(ModelOptions("bf16", "uint8"))
    route = Route(backend, "cpu", 1, (1,), export=options)
    found = route.open_checkpoint(random_checkpoint(MICRO), tmp_path)
    evo = found.engine
    twin = route.like(evo).open_vanilla("twin", MICRO, tmp_path).engine
    for engine in (evo, twin):
        assert engine.backend == {"compile": "torch.compile"}.get(backend, backend)
        assert (engine.spec.precision, engine.spec.input) == ("bf16", "uint8")
    assert len(compiled) == (2 if backend == "compile" else 0)
    assert all(options == {"dynamic": False, "mode": "default"} for options in compiled)
    assert found.subject.facts.macs is not None


def test_unknown_backend() -> None:
    with pytest.raises(InputError, match="backend 'caffe' is unknown; valid: auto, onnxruntime"):
        Route("caffe")


def test_files_that_a_backend_does_not_run(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--backend compile runs checkpoints"):
        Route("compile").open_file(exported)
    with pytest.raises(InputError, match="is for tensorrt, and --backend onnxruntime runs ONNX files"):
        Route("onnxruntime").open_file(write_plan(tmp_path / "x.engine"))


def test_tensorrt_without_a_gpu(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evovit_deploy.engines.trt.api.find_gpu", lambda device=0: None)
    with pytest.raises(EngineError, match="measures on an NVIDIA GPU, and none was found"):
        Route("tensorrt").open_file(exported)


def test_tensorrt_engines_are_built_for_the_batches_of_the_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[BuildOptions] = []

    def build(path: Path, engine: Path, options: BuildOptions, *, prove: bool) -> Any:
        built.append(options)
        return dataclasses.make_dataclass("Result", ["path"])(engine)

    monkeypatch.setattr("evovit_deploy.engines.trt.api.find_gpu", lambda device=0: object())
    monkeypatch.setattr("evovit_deploy.building.build.build_engine", build)
    opened: list[Path] = []

    def open_engine(path: Path, **options: Any) -> FakeEngine:
        opened.append(path)
        return FakeEngine()

    monkeypatch.setattr(Engine, "open", staticmethod(open_engine))
    Route("tensorrt", batches=(2, 16, 4)).open_file(exported)
    assert (built[0].target, built[0].min_batch, built[0].opt_batch, built[0].max_batch) == ("tensorrt", 2, 16, 16)
    assert [path.name for path in opened] == ["evo.engine"]
    assert not opened[0].parent.exists()  # nothing is left beside the user's file
    # The twin of an engine is built with the options of that engine's own manifest.
    options = BuildOptions(target="tensorrt-rtx", max_batch=4, compute_capabilities=("8.9",))
    document = {"flavour": "tensorrt-rtx", "options": {**dataclasses.asdict(options), "compute_capabilities": ["8.9"]}}
    monkeypatch.setattr("evovit_deploy.engines.trt.engine_manifest.read_manifest", lambda path: document)
    assert routes._build_options(Path("x.engine")) == options
    Route("tensorrt-rtx", build=options).open_file(exported)
    assert built[1] == options


@pytest.mark.parametrize(
    ("asked", "gpu", "taken"),
    [
        ({}, False, "float32"),
        ({}, True, "uint8"),
        ({"provider": "cpu"}, True, "float32"),
        ({"provider": "cuda"}, False, "uint8"),
        ({"backend": "pytorch"}, True, "uint8"),
        ({"backend": "tensorrt"}, False, "uint8"),
        ({"backend": "onnxruntime"}, True, "uint8"),
        ({"input": "float32"}, True, "float32"),
        ({"input": "uint8"}, False, "uint8"),
        ({"others": "x.onnx"}, True, "float32"),  # it may have the other one
        ({"baseline": "x.onnx"}, True, "float32"),
        ({"others": "x.onnx", "input": "uint8"}, True, "uint8"),
        ({"model": "x.pth"}, True, "uint8"),
        ({"model": "x.onnx"}, True, "float32"),
    ],
)
def test_pixels_are_the_input_on_a_gpu(
    asked: dict[str, Any], gpu: bool, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {
        name: {"state": "ok", "gpu": "a GPU" if gpu else None, "cuda_problem": None}
        for name in ("torch", "onnxruntime")
    }
    monkeypatch.setattr(routes, "_probes", lambda: found)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    for name in ("x.onnx", "x.pth"):
        (tmp_path / name).touch()
    given = {
        name: (tmp_path / value,) if name == "others" else tmp_path / value if name == "model" else
        str(tmp_path / value) if name == "baseline" else value
        for name, value in asked.items()
    }  # fmt: skip
    export = Options(**given).route.export
    assert (export.model.image_input if export is not None else "float32") == taken


def test_a_gpu_that_onnxruntime_cannot_use_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "onnxruntime": {"state": "ok", "cuda_problem": "no CUDA provider"},
        "torch": {"state": "ok", "gpu": "a GPU"},
    }
    monkeypatch.setattr(routes, "_probes", lambda: found)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert not Route("onnxruntime").on_gpu
    assert Route("pytorch").on_gpu


def test_what_gpu_check_measures_on_a_gpu() -> None:
    asked = BenchOptions(
        model="evo_deit_tiny_patch16_224", random_weights=True, provider="cuda", precision="fp16", quick=True
    )
    [one] = asked.runs()
    assert one.route.export is not None
    assert one.route.export.model == ModelOptions("fp16", "uint8")
