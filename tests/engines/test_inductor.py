"""Inductor engines: what is opened, where, and with what; one package is compiled for real, the rest are stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy import Engine, InputError, doctor, load_recipe, random_checkpoint, verify
from evovit_deploy.describe import describe
from evovit_deploy.engines.inductor import compiling
from evovit_deploy.engines.inductor import engine as engine_module
from evovit_deploy.engines.inductor.engine import InductorEngine
from evovit_deploy.engines.inductor.options import Batches
from evovit_deploy.engines.inductor.package import manifest_path, rebuild_command
from evovit_deploy.engines.pytorch import TorchEngine
from evovit_deploy.errors import EngineError
from evovit_deploy.packages import ServiceOptions, read_contents
from evovit_deploy.recipes.write import recipe_toml
from evovit_deploy.serve.metrics import Metrics
from evovit_deploy.serve.repository import ModelRepository
from evovit_deploy.serve.settings import ModelSource, ServiceSettings
from tests.cli.test_bench import MICRO, SHORT
from tests.conftest import DIGITS
from tests.engines.conduct import logits_from_threads
from tests.engines.fake_inductor import Compiler
from tests.engines.test_forking import in_child
from tests.export.conftest import TINY
from tests.modules import module_of

Evovit = Callable[..., tuple[int, str, str]]
FRESH = """
import sys, torch, numpy as np
from evovit_deploy import Engine
images = np.load(sys.argv[2])
with Engine.open(sys.argv[1]) as engine:
    np.save(sys.argv[3], engine(images)["logits"])
wrong = [name for name in sys.modules if name.startswith(("evovit_deploy.models.ops", "torch._inductor", "torch._dynamo"))]
assert not wrong, wrong
assert not hasattr(torch.ops.evovit, "gather_tokens")
"""


def batch(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, 3, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def engine(inductor_package: Path) -> Any:
    with Engine.open(inductor_package, threads=1) as opened:
        yield opened


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler().install(monkeypatch)


@pytest.fixture
def package(compiler: Compiler, tmp_path: Path, evovit: Evovit) -> Path:
    """A package of a stand-in, for batches of 1 to 4."""
    (tmp_path / "micro.toml").write_text(MICRO)
    words = ("export", "--recipe", tmp_path / "micro.toml", "--random-weights", "--format", "engine", "--no-verify")
    code, _, err = evovit(*words, "--target", "inductor", "--max-batch", "4", "-o", tmp_path / "m.pt2")
    assert code == 0, err
    return tmp_path / "m.pt2"


def change(package: Path, *keys: str, value: Any) -> None:
    beside = manifest_path(package)
    document = json.loads(beside.read_text())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    beside.write_text(json.dumps(document))


def test_it_is_the_checkpoints_function(engine: Engine, inductor_package: Path) -> None:
    with TorchEngine.from_checkpoint(random_checkpoint(TINY), provider="cpu") as reference:
        logits = reference(batch(11))["logits"]
    assert engine.spec.max_batch == 8
    np.testing.assert_allclose(engine(batch(11))["logits"], logits, atol=1e-4 * max(1, np.abs(logits).max()))
    parity = json.loads(manifest_path(inductor_package).read_text())["parity"]
    assert parity["passed"] is True
    assert parity["jaccard"] == {"kept_1": 1.0, "kept_2": 1.0}
    with Engine.open(inductor_package) as again:
        assert verify(engine, again).passed


def test_a_fresh_process_compiles_nothing_and_needs_no_code_of_the_model(
    engine: Engine, inductor_package: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", batch(3))
    subprocess.run(
        [sys.executable, "-c", FRESH, inductor_package, tmp_path / "x.npy", tmp_path / "y.npy"],
        check=True,
        env={**os.environ, "CXX": "no-such-compiler"},
    )
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), engine(batch(3))["logits"], atol=1e-5)


def test_threads_get_their_own_answers(engine: Engine) -> None:
    inputs = [batch(1 + seed % 3, seed) for seed in range(8)]
    expected = [engine(images)["logits"] for images in inputs]
    for wanted, got in zip(expected, logits_from_threads(engine, inputs, times=3)):
        np.testing.assert_array_equal(wanted, got)


def test_a_tensor_on_its_device_stays_a_tensor(engine: Engine) -> None:
    images = torch.from_numpy(batch(9))
    found = engine(images)
    assert isinstance(found["logits"], torch.Tensor)
    np.testing.assert_array_equal(found["logits"].numpy(), engine(batch(9))["logits"])
    assert found["kept_1"].dtype == torch.int64
    with pytest.raises(InputError, match=r"takes float32 images, not torch.bfloat16"):
        engine(images.bfloat16())
    with pytest.raises(InputError, match="takes images of shape"):
        engine(images[0])


def test_images_that_cannot_be_written_to_are_taken_in_silence(package: Path, recwarn: pytest.WarningsRecorder) -> None:
    images, before = np.zeros((2, 3, 32, 32), np.float32), torch.is_warn_always_enabled()
    images.setflags(write=False)
    torch.set_warn_always(True)
    try:
        with Engine.open(package) as opened:
            opened(images)
    finally:
        torch.set_warn_always(before)
    assert not recwarn.list


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_answers(engine: Engine) -> None:
    expected = engine(batch(2))["logits"]
    np.testing.assert_array_equal(in_child(lambda: engine(batch(2))["logits"]), expected)


def test_commands_take_it(inductor_package: Path, evovit: Evovit, tmp_path: Path) -> None:
    weights = inductor_package.with_suffix(".pth")
    code, out, err = evovit("verify", weights, inductor_package, "--json", "--provider", "cpu")
    assert code == 0, err
    assert json.loads(out)["passed"]
    images = tmp_path / "images"
    images.mkdir()
    for image in sorted((DIGITS.parent / "test" / "3").iterdir())[:9]:
        shutil.copy(image, images)
    (tmp_path / "tiny.toml").write_text(recipe_toml(TINY, "for tests"))
    answers = []
    for words in ((inductor_package, "--backend", "inductor"), (weights, "--recipe", tmp_path / "tiny.toml")):
        code, out, err = evovit("predict", *words, images, "--json", "--provider", "cpu")
        assert code == 0, err
        answers.append(json.loads(out))
    assert answers[0]["backend"] == "inductor"
    found, expected = ([(r["top"][0]["class"]) for r in answer["results"]] for answer in answers)
    assert found == expected
    assert len(found) == 9
    code, out, err = evovit("inspect", inductor_package)
    assert code == 0, err
    assert "1 to 8" in out
    assert "native code" in out
    code, _, err = evovit("predict", inductor_package, images, "--provider", "cuda")
    assert code == 4
    assert "was compiled for cpu, and cuda is asked for" in err


def test_the_service_and_packages_take_it(inductor_package: Path) -> None:
    models = ModelRepository(ModelSource.parse_all([f"m={inductor_package}"]), ServiceSettings(), Metrics())
    models.load_all()
    try:
        assert models.find("m").batcher.submit(batch(2)).result(60)["logits"].shape == (2, 7)
    finally:
        models.close(1.0)
    contents = read_contents(inductor_package)
    assert (contents.backend, contents.max_batch, contents.num_classes, contents.gpu_only) == ("inductor", 8, 7, False)
    assert contents.version == torch.__version__.partition("+")[0]
    assert set(ServiceOptions().files(contents)) == {"tiny.pt2", "tiny.pt2.json"}


def test_what_it_says_of_itself(inductor_package: Path) -> None:
    found = describe(inductor_package)
    assert (found["kind"], found["device"], found["batch"]) == ("inductor", "cpu", "1 to 8")
    assert found["manifest"]["graph"] == {"attention": TINY.structure.depth}
    assert found["keep_ratios"]
    rows = {entry.name: entry for entry in doctor.examine({"torch": {"state": "ok", "version": "9"}}).findings}
    assert (rows["backend inductor"].status, rows["backend inductor"].value) == ("ok", "torch 9, on cpu")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("torch",), "1.13.0", r"was compiled with PyTorch 1\.13\.0, and this is"),
        (("machine", "system"), "Plan9", "was compiled for system Plan9, and this is"),
        (("machine", "processor"), "vax", "was compiled for processor vax, and this is"),
        (("machine", "cpu_features"), ["avx9000"], r"this processor \(.*\) has no avx9000"),
        (("package", "bytes"), 3, "has 9 bytes, and its manifest describes 3"),
        (("package", "sha256"), "0" * 64, "the SHA-256 differs"),
        (("package",), None, "is damaged: package is None, not an object"),
        (("machine", "device"), "tpu", "is damaged: machine.device is"),
        (("batch", "max"), 0, "is damaged: batch.max is"),
        (("batch", "sizes"), [2, 1], "is damaged: batch sizes 2, 1"),
        (("model", "outputs"), 7, "is damaged: .*outputs"),
        (("schema",), 99, "was written by a newer evovit-deploy"),
    ],
)
def test_what_does_not_fit_is_never_opened(
    package: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...], value: Any, message: str
) -> None:
    change(package, *keys, value=value)
    monkeypatch.setattr(engine_module, "_load", lambda *arguments: pytest.fail("it was opened"))
    with pytest.raises(EngineError, match=message) as caught:
        Engine.open(package)
    assert caught.value.exit_code == 4
    assert "newer" in message or "evovit export CKPT --format engine --target inductor -o" in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"schema": 1}'])
def test_a_missing_or_broken_manifest(package: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    monkeypatch.setattr(engine_module, "_load", lambda *arguments: pytest.fail("it was opened"))
    manifest_path(package).unlink()
    if text is not None:
        manifest_path(package).write_text(text)
    for look in (Engine.open, describe, read_contents):
        with pytest.raises(EngineError, match="Build it again: evovit export CKPT --format engine --target inductor"):
            look(package)  # type: ignore[operator]


def test_another_file_under_its_name(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_load", lambda *arguments: pytest.fail("it was opened"))
    package.write_bytes(b"package 9")
    with pytest.raises(EngineError, match=r"SHA-256 differs\. Build it again: .* --max-batch 4"):
        Engine.open(package)


def test_a_package_for_a_gpu_says_what_to_do(package: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    change(package, "machine", "device", value="cuda")
    with pytest.raises(EngineError, match=r"PyTorch cannot use a GPU here.*--device cpu"):
        Engine.open(package)
    assert read_contents(package).gpu_only


def test_static_sizes_are_filled_up_and_split(
    compiler: Compiler, tmp_path: Path, package: Path, evovit: Evovit
) -> None:
    words = ("export", "--recipe", tmp_path / "micro.toml", "--random-weights", "--format", "engine", "--no-verify")
    code, _, err = evovit(*words, "--target", "inductor", "--batch", "4,1", "-o", tmp_path / "s.pt2")
    assert code == 0, err
    images = np.random.default_rng(0).normal(size=(7, 3, 32, 32)).astype(np.float32)
    with Engine.open(package) as whole, InductorEngine(tmp_path / "s.pt2") as engine:
        expected = whole(images)["logits"]
        compiler.ran.clear()
        np.testing.assert_allclose(engine(images)["logits"], expected, atol=1e-5)
        np.testing.assert_allclose(engine(torch.from_numpy(images))["logits"], expected, atol=1e-5)
        engine(images[:1])
    assert compiler.ran == [("batch_4", 4)] * 4 + [("batch_1", 1)]
    assert whole.spec.batch is None
    with pytest.raises(EngineError, match="is closed"):
        engine(images)


@pytest.mark.parametrize("sizes", [(), (1,), (1, 4)])
def test_code_and_weights_are_in_the_package_and_nowhere_else(
    sizes: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PyTorch is told nothing, they stay in its cache too, 90 MB for a small model."""

    def aot_compile(module: Any, *inputs: Any, options: dict[str, Any]) -> list[str]:
        assert (
            options["aot_inductor.precompile_headers"] is False
        )  # PyTorch would keep them outside of its cache as well
        code = Path(options["aot_inductor.output_path"], "model.so")
        code.write_bytes(b"%d" % len(inputs[0][0]))
        return [str(code)]

    def package_aoti(path: str, files: dict[str, list[str]]) -> None:
        packed = {name: Path(code).read_text() for name, (code,) in files.items()}
        Path(path).write_text(json.dumps(packed))

    monkeypatch.setattr("torch._inductor.aot_compile", aot_compile)
    monkeypatch.setattr("torch._inductor.package.package_aoti", package_aoti)
    monkeypatch.setattr(compiling, "check_compiler", lambda: None)
    (tmp_path / "micro.toml").write_text(MICRO)
    module = module_of(random_checkpoint(load_recipe(tmp_path / "micro.toml")))
    batches = Batches.static(*sizes) if sizes else Batches.range(1, 8)
    folder = tmp_path / "made"
    folder.mkdir()
    compiling.compile_package(module, ("logits",), folder / "m.pt2", batches, "cpu")
    assert list(folder.iterdir()) == [folder / "m.pt2"]
    expected = {f"batch_{size}": str(size) for size in sizes} if len(sizes) > 1 else {"model": str((*sizes, 2)[0])}
    assert json.loads((folder / "m.pt2").read_text()) == expected


def test_bench_makes_one_of_a_checkpoint_and_of_its_twin(compiler: Compiler, tmp_path: Path, evovit: Evovit) -> None:
    (tmp_path / "evo_micro.toml").write_text(MICRO)
    words = ("bench", tmp_path / "evo_micro.toml", "--random-weights", "--backend", "inductor", *SHORT)
    code, out, err = evovit(*words, "--batch", "1", "--json", "--provider", "cpu")
    assert code == 0, err
    subjects = json.loads(out)["subjects"]
    assert [subject["backend"] for subject in subjects] == ["inductor", "inductor"]
    assert subjects[0]["selection"] != "auto"
    assert all(subject["facts"]["macs"] for subject in subjects)
    assert [(str(batches), device) for batches, device in compiler.compiled] == [("1", "cpu"), ("1", "cpu")]


def test_the_command_that_builds_it_again_names_outputs_as_they_are_typed() -> None:
    model: dict[str, Any] = {"precision": "fp32", "input": "float32", "selection": None, "folded": True}
    model["outputs"] = ["logits", "class_token", "block_3", "kept_1", "kept_2"]
    document = {"model": model, "machine": {"device": "cpu"}, "batch": {"min": 1, "max": 8, "sizes": []}}
    assert "--outputs logits,class_token,block_3,kept " in rebuild_command(Path("m.pt2"), document)
