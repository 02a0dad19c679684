"""PyTorch modules, and their agreement with what is exported from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evovit_deploy import Engine
from evovit_deploy.checkpoint import random_checkpoint
from evovit_deploy.engines import TorchEngine
from evovit_deploy.errors import EngineError
from evovit_deploy.manifest.spec import ModelSpec
from evovit_deploy.recipes import Evolution, Recipe, Structure, Transform
from tests.engines.foreign_onnx import CLASSES


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe(
        "tiny",
        "evo_deit",
        Structure(image_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=CLASSES),
        Evolution(keep_ratios=(1.0, 1.0, 0.5), tradeoff=(1.0, 1.0, 0.5), stage_starts=(2,)),
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


def test_images_that_cannot_be_written_to_are_taken_in_silence(
    recipe: Recipe, recwarn: pytest.WarningsRecorder
) -> None:
    """A service gets such: the body of a request."""
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    try:
        with TorchEngine.from_checkpoint(random_checkpoint(recipe), provider="cpu") as engine:
            expected = engine(images)["logits"]
            images.setflags(write=False)
            np.testing.assert_array_equal(engine(images)["logits"], expected)
    finally:
        torch.set_warn_always(before)
    assert not recwarn.list
