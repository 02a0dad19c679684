from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from evovit_deploy import Engine
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines import FakeEngine, ModelSpec, OrtEngine, TorchEngine
from evovit_deploy.engines.base import Engine as Base
from evovit_deploy.engines.onnxruntime import cuda_problem
from evovit_deploy.errors import EngineError, InputError, ModelFileError
from evovit_deploy.recipes import Evolution, Recipe, Structure, Transform

CLASSES, SIZE = 5, 4


def make_onnx(
    path: Path,
    shape: list[Any] | None = None,
    kind: int = TensorProto.FLOAT,
    *,
    extra_input: bool = False,
    extra_outputs: bool = False,
    output_shape: list[Any] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A model of another tool: logits = the channel means times a matrix."""
    shape = shape or ["n", 3, SIZE, SIZE]
    channels = shape[3 if kind == TensorProto.UINT8 else 1]
    weight = np.random.default_rng(0).normal(size=(channels, CLASSES)).astype(np.float32)
    axes = [1, 2] if kind == TensorProto.UINT8 else [2, 3]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0),
        helper.make_node("MatMul", ["m", "w"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("pixels", kind, shape)]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, output_shape or [shape[0], CLASSES])]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
        nodes.append(helper.make_node("Identity", ["more"], ["unused"]))
    if extra_outputs:
        nodes += [
            helper.make_node("Identity", ["m"], ["features"]),
            helper.make_node("ReduceSum", ["m"], ["total"], keepdims=0),
        ]
        outputs += [
            helper.make_tensor_value_info("total", TensorProto.FLOAT, []),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, [shape[0], 3]),
        ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], axes),
        helper.make_tensor("w", TensorProto.FLOAT, weight.shape, weight.ravel()),
    ]
    graph = helper.make_graph(nodes, "foreign", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def random_images(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[OrtEngine]:
    engine = OrtEngine(make_onnx(tmp_path / "foreign.onnx"), provider="cpu")
    yield engine
    engine.close()


class Recorder(Base):
    """Sums every image; records the batch sizes that reach ``run``."""

    backend, device = "test", "cpu"

    def __init__(self, **limits: int) -> None:
        self.spec = ModelSpec("sums", SIZE, "float32", 1, ("logits",), **limits)  # type: ignore[arg-type]
        self.sizes: list[int] = []

    def run(self, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        self.sizes.append(len(images))
        return {"logits": images.reshape(len(images), -1).sum(1, keepdims=True)}


# What any engine checks and does with a batch


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((3, 8, 8), r"\[3, 8, 8\]\. Add the batch axis: images\[None\]\."),
        ((2, 8, 8, 3), "The channels are in the wrong place"),
        ((2, 3, 9, 8), r"\[B, 3, 8, 8\], not \[2, 3, 9, 8\]\.$"),
        ((8,), r"not \[8\]\.$"),
        ((), r"not \[\]\.$"),
    ],
)
def test_wrong_shapes(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        FakeEngine()(np.zeros(shape, np.float32))


def test_channels_first_uint8_gets_the_hint() -> None:
    with pytest.raises(InputError, match="channels are in the wrong place"):
        FakeEngine(image_input="uint8")(np.zeros((2, 3, 8, 8), np.uint8))


@pytest.mark.parametrize("dtype", ["float64", "float16", "uint8", "int64"])
def test_wrong_dtype_says_how_to_convert(dtype: str) -> None:
    images = np.zeros((1, 3, 8, 8), dtype)
    with pytest.raises(InputError, match=rf"normalised float32, not {dtype}.*astype\('float32'\)"):
        FakeEngine()(images)
    with pytest.raises(InputError, match=rf"not torch\.{dtype}.*torch\.float32"):
        FakeEngine()(torch.from_numpy(images))


def test_bfloat16_tensor_is_refused_by_this_package() -> None:
    with pytest.raises(InputError, match=r"not torch\.bfloat16"):
        FakeEngine()(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16))


def test_no_images_and_no_array() -> None:
    with pytest.raises(InputError, match="no images"):
        FakeEngine()(np.zeros((0, 3, 8, 8), np.float32))
    with pytest.raises(InputError, match="images are list"):
        FakeEngine()([[1.0]])  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (4, [4]), (5, [4, 1]), (11, [4, 4, 3])])
def test_batches_are_split_at_max_batch(count: int, sizes: list[int]) -> None:
    engine, images = Recorder(max_batch=4), random_images(count)
    result = engine(images)["logits"]
    assert engine.sizes == sizes
    np.testing.assert_array_equal(result, images.reshape(count, -1).sum(1, keepdims=True))


@pytest.mark.parametrize(("count", "runs"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_static_batch_is_padded_and_cut(count: int, runs: int) -> None:
    engine, images = Recorder(batch=4), random_images(count)
    result = engine(images)["logits"]
    assert engine.sizes == [4] * runs
    np.testing.assert_array_equal(result, images.reshape(count, -1).sum(1, keepdims=True))


def test_without_a_limit_all_go_at_once() -> None:
    engine = Recorder()
    engine(random_images(100))
    assert engine.sizes == [100]


def test_torch_in_torch_out() -> None:
    images = random_images(3)
    tensor = torch.from_numpy(images).requires_grad_()
    result = Recorder(max_batch=2)(tensor)["logits"]
    assert isinstance(result, torch.Tensor)
    assert result.device == tensor.device
    np.testing.assert_array_equal(result.numpy(), Recorder(max_batch=2)(images)["logits"])


# Opening


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"gone\.onnx: no such file.*evovit export"):
        Engine.open(tmp_path / "gone.onnx")
    with pytest.raises(ModelFileError):
        Engine.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is no protobuf", bytes(range(256))])
def test_corrupt_onnx(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.onnx"):
        Engine.open(path, provider="cpu")


def test_truncated_onnx(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "cut.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ModelFileError, match=r"cut\.onnx"):
        Engine.open(path, provider="cpu")


def test_unknown_backend_and_provider(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx")
    with pytest.raises(EngineError, match=r"'openvino' is unknown; valid: auto, onnxruntime, pytorch"):
        Engine.open(path, backend="openvino")
    with pytest.raises(EngineError, match=r"'tpu' is unknown; valid: auto, cpu, cuda"):
        Engine.open(path, provider="tpu")


def test_cuda_is_refused_without_a_gpu(tmp_path: Path) -> None:
    if cuda_problem() is None:
        pytest.skip("this machine has a usable GPU")
    path = make_onnx(tmp_path / "x.onnx")
    with pytest.raises(EngineError, match=r"cannot run on a GPU.*--provider cpu") as caught:
        Engine.open(path, provider="cuda")
    assert caught.value.exit_code == 4
    with Engine.open(path) as engine:  # auto takes the CPU
        assert engine.device == "cpu"


# Models of other tools


def test_foreign_model_is_accepted(foreign: OrtEngine) -> None:
    spec = foreign.spec
    assert (spec.name, spec.image_size, spec.input, spec.num_classes) == ("foreign", SIZE, "float32", CLASSES)
    assert (spec.outputs, spec.batch, spec.transform, spec.manifest) == (("scores",), None, None, None)
    images = random_images(3)
    weight = np.random.default_rng(0).normal(size=(3, CLASSES)).astype(np.float32)
    np.testing.assert_allclose(foreign(images)["scores"], images.mean((2, 3)) @ weight, atol=1e-6)


def test_foreign_uint8_and_static_batch(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx", [2, SIZE, SIZE, 3], TensorProto.UINT8)
    with OrtEngine(path, provider="cpu") as engine:
        assert (engine.spec.input, engine.spec.batch) == ("uint8", 2)
        images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
        together = engine(images)["scores"]
        assert together.shape == (5, CLASSES)
        np.testing.assert_allclose(together, np.concatenate([engine(images[i : i + 1])["scores"] for i in range(5)]))


def test_only_outputs_with_a_row_an_image_are_given(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx", [2, 3, SIZE, SIZE], extra_outputs=True)
    with OrtEngine(path, provider="cpu") as engine:
        result = engine(random_images(3))  # padded: a scalar could not be cut
        assert {name: value.shape for name, value in result.items()} == {"scores": (3, CLASSES), "features": (3, 3)}


@pytest.mark.parametrize(
    "options",
    [
        {"shape": ["n", 1, SIZE, SIZE]},
        {"shape": ["n", 3, SIZE, SIZE + 1]},
        {"shape": ["n", 3, "h", "h"]},
        {"kind": TensorProto.DOUBLE},
        {"extra_input": True},
    ],
)
def test_foreign_input_that_is_no_image_batch_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    path = make_onnx(tmp_path / "x.onnx", output_shape=["n", CLASSES], **options)
    with pytest.raises(ModelFileError, match=r"x\.onnx .*not one image batch.*evovit export"):
        Engine.open(path, provider="cpu")


def test_class_count_is_found_by_shape_inference(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx", output_shape=["n", "classes"])
    with OrtEngine(path, provider="cpu") as engine:
        assert engine.spec.num_classes == CLASSES


def test_model_without_an_input_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor("v", TensorProto.FLOAT, [1, 2], [0.0, 1.0])
    node = helper.make_node("Constant", [], ["scores"], value=value)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "x.onnx")
    with pytest.raises(ModelFileError, match="has no input"):
        Engine.open(tmp_path / "x.onnx", provider="cpu")


@pytest.mark.parametrize(
    "manifest", [{"schema": 1}, {"schema": 1, "recipe": {"surprise": 1}}, {"schema": 1, "recipe": 3}]
)
def test_damaged_manifest_is_a_model_file_error(tmp_path: Path, manifest: dict[str, Any]) -> None:
    path = make_onnx(tmp_path / "x.onnx", metadata={"evovit": json.dumps(manifest)})
    with pytest.raises(ModelFileError, match=r"x\.onnx: its evovit manifest"):
        Engine.open(path, provider="cpu")


def test_manifest_of_another_schema_is_treated_as_foreign(tmp_path: Path) -> None:
    path = make_onnx(tmp_path / "x.onnx", metadata={"evovit": json.dumps({"schema": 999})})
    with OrtEngine(path, provider="cpu") as engine:
        assert engine.spec.manifest is None


# Running


def test_closed_engine(foreign: OrtEngine) -> None:
    foreign.close()
    foreign.close()
    with pytest.raises(EngineError, match="foreign is closed"):
        foreign(random_images(1))


def test_two_threads_get_their_own_answers(foreign: OrtEngine) -> None:
    jobs = [random_images(1 + seed % 5, seed) for seed in range(60)]
    expected = [foreign(images)["scores"] for images in jobs]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(lambda images: foreign(images)["scores"], jobs), expected):
            np.testing.assert_array_equal(got, want)


def test_non_contiguous_images(foreign: OrtEngine) -> None:
    images = random_images(6)
    np.testing.assert_array_equal(foreign(images[::-2])["scores"], foreign(images[::-2].copy())["scores"])


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    ones = (1.0,) * 4
    return Recipe(
        "tiny",
        "evo_deit",
        Structure(image_size=32, patch_size=8, embed_dim=32, depth=5, num_heads=2, num_classes=CLASSES),
        Evolution(keep_ratios=(*ones, 0.5), tradeoff=(*ones, 0.5), stage_starts=(4,)),
        transform=Transform(mean=(0.5, 0.5, 0.5)),
    )


def test_torch_engine(recipe: Recipe) -> None:
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    with TorchEngine.from_checkpoint(random_checkpoint(recipe), provider="cpu") as engine:
        assert engine.spec == ModelSpec(
            "tiny", 32, "float32", CLASSES, ("logits",), precision="fp32", transform=recipe.transform
        )
        logits = engine(images)["logits"]
        assert logits.shape == (3, CLASSES)
        assert np.isfinite(logits).all()
        np.testing.assert_allclose(engine(images[1:2])["logits"], logits[1:2], atol=1e-5)
    with pytest.raises(EngineError, match="tiny is closed"):
        engine(images)


def test_torch_engine_provider(recipe: Recipe) -> None:
    checkpoint = random_checkpoint(recipe)
    with pytest.raises(EngineError, match="'tpu' is unknown"):
        TorchEngine.from_checkpoint(checkpoint, provider="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(EngineError, match="cannot use a GPU"):
            TorchEngine.from_checkpoint(checkpoint, provider="cuda")


def test_exported_model_and_its_module_agree(recipe: Recipe, tmp_path: Path) -> None:
    from evovit_deploy import export_onnx

    checkpoint = random_checkpoint(recipe)
    export_onnx(checkpoint, tmp_path / "tiny.onnx")
    images = np.random.default_rng(1).normal(size=(4, 3, 32, 32)).astype(np.float32)
    with Engine.open(tmp_path / "tiny.onnx", provider="cpu") as a:
        assert a.backend == "onnxruntime"
        assert a.spec.transform == recipe.transform
        assert (a.spec.name, a.spec.image_size, a.spec.num_classes) == ("tiny", 32, CLASSES)
        with TorchEngine.from_checkpoint(checkpoint, provider="cpu") as b:
            np.testing.assert_allclose(a(images)["logits"], b(images)["logits"], atol=1e-5)


def test_checkpoint_through_open_equals_the_authors_model(reference: Path) -> None:
    data = np.load(reference / "evo_deit_micro.npz")
    with Engine.open(reference / "evo_deit_micro.pth", provider="cpu") as engine:
        assert engine.backend == "pytorch"
        np.testing.assert_allclose(engine(data["images"])["logits"], data["logits"], atol=1e-5, rtol=0)
