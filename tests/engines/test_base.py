"""What any engine checks, and what it does with a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from evovit_deploy.engines import FakeEngine
from evovit_deploy.engines.base import Engine as Base
from evovit_deploy.errors import InputError, ModelFileError
from evovit_deploy.manifest.spec import ModelSpec
from evovit_deploy.recipes import load_recipe
from tests.engines.foreign_onnx import SIZE, random_images

TINY = "evo_deit_tiny_patch16_224"


class Recorder(Base):
    """Sums every image; records the batch sizes that reach ``run``."""

    backend, device = "test", "cpu"

    def __init__(self, **limits: int) -> None:
        self.spec = ModelSpec("sums", SIZE, "float32", 1, ("logits",), **limits)  # type: ignore[arg-type]
        self.sizes: list[int] = []

    def run(self, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        self.sizes.append(len(images))
        return {"logits": images.reshape(len(images), -1).sum(1, keepdims=True)}


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


@pytest.mark.parametrize(
    "manifest", [{}, {"recipe": 3}, {"recipe": {"surprise": 1}}, [], {"recipe": load_recipe(TINY).to_dict()}]
)
def test_a_damaged_manifest_names_its_file(manifest: Any) -> None:
    with pytest.raises(ModelFileError, match=r"m\.engine\.json: its evovit manifest"):
        ModelSpec.from_manifest(manifest, "m.engine.json")
