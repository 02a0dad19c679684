"""Packages of models as people have them: built, compared, opened in a fresh process, served, and embedded in every way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.http as triton

from evovit_deploy import Engine
from evovit_deploy.building.export import ExportJob, export
from evovit_deploy.checkpoint.options import CheckpointOptions
from evovit_deploy.engines.inductor.compiling import check_compiler
from evovit_deploy.engines.inductor.package import manifest_path
from evovit_deploy.errors import EngineError
from evovit_deploy.export.onnx import ExportOptions
from evovit_deploy.export.source import ExportSource
from evovit_deploy.models.options import ModelOptions
from tests.engines.conduct import logits_from_threads
from tests.engines.test_forking import WAYS, in_child
from tests.serve.running import running

pytestmark = pytest.mark.whole

FRESH = """
import sys, time
import numpy as np, torch
start = time.perf_counter()
from evovit_deploy import Engine
with Engine.open(sys.argv[1]) as engine:
    opened = time.perf_counter() - start
    np.savez(sys.argv[3], **engine(np.load(sys.argv[2])))
print(f"{sys.argv[1]}: opened in {opened:.2f} s")
wrong = [name for name in sys.modules if name.startswith(("evovit_deploy.models.ops", "torch._inductor", "torch._dynamo"))]
assert not wrong, wrong
"""


@dataclass(frozen=True)
class Case:
    """A package: the model, its options, its static sizes (none for a range), and the number of its attentions."""

    source: ExportSource
    options: ModelOptions
    sizes: tuple[int, ...]
    attentions: int


def recipe(name: str) -> ExportSource:
    return ExportSource(options=CheckpointOptions(name), random_weights=True)


def timm(name: str, method: str, r: tuple[float, ...] | None = None) -> ExportSource:
    return ExportSource(options=CheckpointOptions(from_timm=name, method=method, r=r))


KEPT, MERGED = ("logits", "kept"), ("logits", "sources", "sizes")
SMALL, LEVIT = "evo_deit_small_patch16_224", "evo_levit_128s_224"
CASES = {
    "small": Case(recipe(SMALL), ModelOptions(outputs=KEPT), (), 12),
    "small fp16": Case(recipe(SMALL), ModelOptions("fp16", outputs=KEPT), (4,), 12),
    "small bf16 uint8": Case(recipe(SMALL), ModelOptions("bf16", "uint8", outputs=KEPT), (1, 8), 12),
    "levit": Case(recipe(LEVIT), ModelOptions(outputs=KEPT), (), 11),
    "levit uint8": Case(recipe("evo_levit_256_224"), ModelOptions(image_input="uint8", outputs=KEPT), (), 14),
    "evit": Case(timm("deit_small_patch16_224", "evit"), ModelOptions(outputs=KEPT), (), 12),
    "tome": Case(timm("vit_small_patch16_224", "tome", (13.0,)), ModelOptions(outputs=MERGED), (), 12),
}


@pytest.fixture(scope="module", params=CASES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Case, Path]]:
    """The package, one at a time: each is up to 90 MB."""
    try:
        check_compiler()
    except EngineError as error:
        pytest.skip(str(error))
    case, path = CASES[request.param], tmp_path_factory.mktemp("sizes") / "model.pt2"
    options, build = ExportOptions(case.options), {"target": "inductor", "max_batch": None if case.sizes else 8}
    precision = case.options.precision
    export(ExportJob(case.source, options, precision, path, engine=True, build=build, device="cpu", sizes=case.sizes))
    yield case, path
    path.unlink()


def batch(engine: Engine, count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    random, shape = np.random.default_rng(seed), (count, *engine.spec.image_shape)
    if engine.spec.input == "uint8":
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.normal(size=shape).astype(np.float32)


def test_it_is_compared_when_it_is_built(built: tuple[Case, Path]) -> None:
    case, path = built
    document = json.loads(manifest_path(path).read_text())
    assert document["parity"]["passed"]
    assert document["graph"] == {"attention": case.attentions}
    if case.options.precision == "fp32":
        assert set(document["parity"]["jaccard"].values()) == {1.0}
    print(f"{document['build_seconds']} s to build, {document['package']['bytes'] / 1e6:.1f} MB")


def test_a_fresh_process_opens_it(built: tuple[Case, Path], tmp_path: Path) -> None:
    with Engine.open(built[1], threads=1) as engine:
        images = batch(engine, 3)
        expected = engine(images)
    np.save(tmp_path / "x.npy", images)
    command = (sys.executable, "-c", FRESH, built[1], tmp_path / "x.npy", tmp_path / "y.npz")
    found = subprocess.run(
        command, check=True, text=True, capture_output=True, env={**os.environ, "CXX": "no-such-compiler"}
    )
    print(found.stdout)
    answers = np.load(tmp_path / "y.npz")
    for name, value in expected.items():
        np.testing.assert_array_equal(answers[name], value)


def test_it_is_embedded_in_every_way(built: tuple[Case, Path]) -> None:
    """Threads, numpy and tensors, `submit`, forked children, and an end that stays one."""
    with Engine.open(built[1], threads=1) as engine:
        inputs = [batch(engine, 1 + seed % 3, seed) for seed in range(6)]
        expected = [engine(images)["logits"] for images in inputs]
        for wanted, got in zip(expected, logits_from_threads(engine, inputs)):
            np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(engine(torch.from_numpy(inputs[2]))["logits"].numpy(), expected[2])
        for way in WAYS.values():
            np.testing.assert_array_equal(in_child(lambda way=way: way(engine, inputs[0]))["logits"], expected[0])
        np.testing.assert_allclose(engine.submit(inputs[0]).result(60)["logits"], expected[0], atol=1e-5)
    with pytest.raises(EngineError, match="is closed"):
        engine(inputs[0])


def test_a_service_answers_as_the_engine_does(built: tuple[Case, Path]) -> None:
    engine = Engine.open(built[1], threads=1)
    images = batch(engine, 2)
    expected = engine(images)
    with running(lambda source, settings: engine) as service, triton.InferenceServerClient(service.http) as client:
        sent = triton.InferInput("images", list(images.shape), "UINT8" if images.dtype == np.uint8 else "FP32")
        sent.set_data_from_numpy(images)
        answer = client.infer("m", [sent])
    for name, value in expected.items():
        np.testing.assert_array_equal(answer.as_numpy(name), value)
