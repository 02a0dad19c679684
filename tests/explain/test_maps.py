from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evovit_deploy import FakeEngine, load_checkpoint
from evovit_deploy.engines import OrtEngine, TorchEngine
from evovit_deploy.errors import InputError
from evovit_deploy.explain import Explainer
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vit.evit_recipe import Fusion
from evovit_deploy.recipes import load_recipe
from tests.models.test_evit import DROPPED, PLACES
from tests.models.test_evit import small as evit


def images(count: int, size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(count, 3, size, size)).astype(np.float32)


def test_kept_patches_are_those_of_most_attention(module_engine: TorchEngine) -> None:
    for look in Explainer(module_engine)(images(3, 64)):
        assert [(part.grid, part.kept.sum()) for part in look.selections] == [(4, 8), (4, 4)]
        for part in look.selections:
            assert part.attention is not None
            assert part.attention[part.kept].min() >= part.attention[~part.kept].max()
        assert len(look.ranking) == 5


def test_onnx_keeps_the_same_and_shows_no_attention(module_engine: TorchEngine, onnx_engine: OrtEngine) -> None:
    for a, b in zip(Explainer(module_engine)(images(3, 64)), Explainer(onnx_engine)(images(3, 64))):
        assert [part.kept.tolist() for part in a.selections] == [part.kept.tolist() for part in b.selections]
        assert all(part.attention is None for part in b.selections)
        assert [c for c, _ in a.ranking] == [c for c, _ in b.ranking]


def test_equals_the_authors_model(reference: Path) -> None:
    expected = np.load(reference / "evo_deit_micro.npz")
    checkpoint = load_checkpoint(reference / "evo_deit_micro.pth")
    engine = TorchEngine.from_checkpoint(checkpoint, ModelOptions(outputs=("logits", "kept")), provider="cpu")
    looks = Explainer(engine)(expected["images"])
    for number, look in enumerate(looks):
        for part, kept in zip(look.selections, (expected["stage1_kept"], expected["stage2_kept"])):
            np.testing.assert_array_equal(np.flatnonzero(part.kept), kept[number])
        np.testing.assert_allclose(look.selections[0].attention, expected["stage1_scores"][number], atol=1e-5)


def test_the_module_is_left_as_it_was(module_engine: TorchEngine) -> None:
    module: Any = module_engine.module
    Explainer(module_engine)(images(1, 64))
    assert "selection_of" not in vars(module)
    with pytest.raises(InputError):
        Explainer(module_engine)(images(1, 32))
    assert "selection_of" not in vars(module)


def test_a_model_that_does_not_tell() -> None:
    with pytest.raises(InputError, match=r"its outputs are logits.*--outputs logits,kept"):
        Explainer(FakeEngine())


def telling(kept: Any, **spec: Any) -> FakeEngine:
    engine = FakeEngine(4, 8)
    engine.spec = dataclasses.replace(engine.spec, outputs=("logits", "kept_1"), **spec)
    engine.run = lambda images: {"logits": np.zeros((len(images), 4)), "kept_1": np.array(kept)}  # type: ignore[method-assign]
    return engine


def test_an_unknown_grid() -> None:
    with pytest.raises(InputError, match="grid of its patches is unknown"):
        Explainer(telling([[0]]))


def test_stages_on_grids_of_their_own() -> None:
    """As Evo-LeViT has them: the first stage of 128S, on 14 x 14 patches, selects nothing."""
    manifest = {"recipe": load_recipe("evo_levit_128s_224").to_dict()}

    def looks(kept: list[list[int]]) -> Any:
        return Explainer(telling(kept, manifest=manifest))(images(1, 8))

    [look] = looks([[0, 3]])
    assert look.selections[0].grid == 7
    assert np.flatnonzero(look.selections[0].kept).tolist() == [0, 3]
    with pytest.raises(InputError, match="outside of a grid of 7 x 7"):
        looks([[49]])


@pytest.mark.parametrize("evolution", [PLACES, DROPPED], ids=["fused", "dropped"])
def test_what_an_evit_leaves_out_is_in_a_fused_token_or_gone(evolution: Fusion) -> None:
    engine = TorchEngine.from_checkpoint(
        evit("deit_small_patch16_224", evolution), ModelOptions(outputs=("logits", "kept")), provider="cpu"
    )
    for look in Explainer(engine)(images(3, 96)):
        before = np.ones(36, bool)
        for place, part in enumerate(look.selections):
            assert not (part.kept & ~before).any(), "what was left out does not come back"
            members = np.concatenate([np.array([], int), *part.fused])
            assert len(np.unique(members)) == len(members)
            assert set(members) == (set(np.flatnonzero(~part.kept)) if evolution.fuse else set())
            assert 1 <= len(part.fused) <= place + 1 if evolution.fuse else not part.fused
            assert part.attention is not None
            assert np.isfinite(part.attention).all()
            if evolution.fuse:  # the patches of one token have its attention
                for group in look.selections[place - 1].fused if place else ():
                    assert len(np.unique(part.attention[group])) == 1
            before = part.kept
