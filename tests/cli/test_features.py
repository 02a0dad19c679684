"""Models without class scores in every command: what has a meaning works, the rest says why not, and writes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

TIMM = ("--from-timm", "test_vit", "--weights")
QUICK = ("--min-seconds", 0.01, "--min-calls", 1, "--warmup", 0, "--batch", 1)


@pytest.fixture
def evovit(evovit_on_a_line, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return evovit_on_a_line


@pytest.fixture
def photos(tmp_path):
    for number in range(2):
        (tmp_path / "photos" / str(number)).mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (50, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / str(number) / "x.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ("logits", "has no classification head, so there are no logits. Its feature is called embedding"),
        ("kept,probabilities", "there are no probabilities"),
        ("blocks=6", "block_6: evo_test_vit has 6 blocks, from 0 to 5"),
        ("blocks=1,2,1", "outputs name block_1 twice"),
        ("blocks=x", "'x' is not the number of a block"),
        ("embeddings", "Did you mean 'embedding'?"),
        ("sources", "sources"),
    ],
)
def test_outputs_that_there_are_not(evovit, headless, tmp_path, outputs, words):
    code, out, err = evovit("export", *TIMM, headless, "--outputs", outputs, "-o", "x.onnx")
    assert (code, out) == (2, "")
    assert words in err
    assert not list(tmp_path.glob("x.*"))


def test_levit_has_no_patches(evovit, tmp_path):
    words = ("--recipe", "evo_levit_128s_224", "--random-weights", "--outputs", "patch_tokens", "-o", "x.onnx")
    code, out, err = evovit("export", *words)
    assert (code, out) == (2, "")
    assert "patch_tokens is not there: the grid shrinks from stage to stage" in err
    assert "valid: logits, probabilities, kept, embedding." in err
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "MODEL", "PHOTOS"),
        ("eval", "MODEL", "--data", "PHOTOS"),
        ("eval", "MODEL", "--data", "PHOTOS", "--labels", "labels.txt"),
        ("predict", "MODEL", "PHOTOS", "--accuracy"),
    ],
    ids=" ".join,
)
def test_commands_about_classes(evovit, features_model, photos, tmp_path, words):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    code, out, err = evovit(*({"MODEL": features_model, "PHOTOS": photos}.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert "gives no class scores, it gives features: embedding, patch_tokens, block_2, kept_1, kept_2" in err


def test_a_sweep_weighs_accuracy(evovit, headless, photos, tmp_path):
    code, out, err = evovit("sweep", *TIMM, headless, "--data", photos, "-o", "sweep")
    assert (code, out) == (2, "")
    assert "has no classification head, and a sweep weighs speed against accuracy" in err
    assert not (tmp_path / "sweep").exists()


def test_inspect(evovit, features_model):
    code, out, err = evovit("inspect", features_model)
    assert code == 0, err
    assert "embedding: float32 [batch, 64]" in out
    assert "patch_tokens: float32 [batch, 9, 64]" in out


def test_inspect_weights_without_a_head(evovit, headless):
    code, out, err = evovit("inspect", headless, "--from-timm", "test_vit")
    assert code == 0, err
    assert "no classification head" in out


def test_verify_against_the_weights(evovit, headless, features_model):
    code, out, err = evovit("verify", headless, features_model, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found["features"]) == ["embedding", "patch_tokens", "block_2"]
    assert found["compared"] is None
    assert found["jaccard"]
    assert "class scores" not in err


def test_explain_needs_no_classes(evovit, headless, photos):
    code, out, err = evovit("explain", headless, photos, "--from-timm", "test_vit", "-o", "explained", "--json")
    assert code == 0, err
    assert json.loads(out)["images"][0]["classes"] == []


def test_bench_measures_it_beside_a_twin_that_gives_the_same(evovit, features_model):
    code, out, err = evovit("bench", features_model, *QUICK, "--json")
    assert code == 0, err
    found = json.loads(out)
    first, twin = (subject["outputs"] for subject in found["subjects"])
    assert twin == [name for name in first if not name.startswith("kept_")]
    assert not any("not the same work" in note for note in found["notes"])


def test_diagnose_judges_features_as_it_does_logits(features_model):
    from evovit_deploy.diagnose import diagnose

    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    found = diagnose(features_model, images=pixels)
    assert found.passed
    assert list(found.parity.features) == ["embedding", "patch_tokens", "block_2"]
    assert 0 < found.parity.features["block_2"].error < 0.05
