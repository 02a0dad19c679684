"""`evovit verify`: the reason when two files differ, and what is shown."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from evovit_deploy import ExportOptions, export_onnx, random_checkpoint
from evovit_deploy.checkpoint import Checkpoint
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution, Recipe
from tests.export.conftest import TINY

OUTPUTS = ("logits", "kept")
RECIPE = """
family = "evo_deit"
[structure]
image_size = 64
patch_size = 16
embed_dim = 64
depth = 4
num_heads = 1
num_classes = 7
[evolution]
keep_ratios = [1, 0.5, 0.5, 0.5]
tradeoff = [1, 0.5, 0.5, 0.5]
stage_starts = [1, 3]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files of one model and of some that differ in one thing, by that thing."""
    folder = tmp_path_factory.mktemp("verify")
    evolution = TINY.evolution
    recipes = {
        "same": TINY,
        "keep": dataclasses.replace(TINY, evolution=evolution.with_keep((0.75, 0.5))),
        "schedule": dataclasses.replace(TINY, evolution=dataclasses.replace(evolution, schedule="layer")),
    }
    for name, recipe in recipes.items():
        checkpoint: Checkpoint = random_checkpoint(recipe)
        options = ExportOptions(ModelOptions(outputs=OUTPUTS), prove=False)
        export_onnx(checkpoint, folder / f"{name}.onnx", options)
    other = onnx.load(folder / "same.onnx")
    manifest = next(entry for entry in other.metadata_props if entry.key == "evovit")
    same = manifest.value
    document = json.loads(same)
    document["recipe"]["transform"]["mean"] = [0.1, 0.2, 0.3]
    manifest.value = json.dumps(document)
    onnx.save(other, folder / "transform.onnx")
    document = json.loads(same)
    document["weights"]["source"] = "random weights (seed 1)"
    manifest.value = json.dumps(document)
    for tensor in other.graph.initializer:  # other weights in the same graph are what an export of them would be
        value = onnx.numpy_helper.to_array(tensor)
        if value.dtype == np.float32 and value.ndim == 2:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(value[::-1]), tensor.name))
    onnx.save(other, folder / "weights.onnx")
    torch.save({"model": dict(random_checkpoint(TINY).state)}, folder / "tiny.pth")
    Image.new("RGB", (80, 64), "white").save(folder / "[white].png")
    return folder


@pytest.fixture
def evovit(evovit_on_a_line):
    return evovit_on_a_line


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("keep", "keep ratios 0.5, 0.5 and 0.75, 0.5"),
        ("transform", "transform mean 0.485, 0.456, 0.406 and 0.1, 0.2, 0.3"),
        ("weights", "weights random weights (seed 0) and random weights (seed 1)"),
    ],
)
def test_a_failure_says_what_differs(evovit, made, name, reason):
    code, out, err = evovit("verify", made / "same.onnx", made / f"{name}.onnx", "--json")
    document = json.loads(out)
    assert (code, document["passed"]) == (3, False)
    assert any(difference.startswith(reason) for difference in document["differences"])
    assert f"is not the same function as {made / 'same.onnx'}: " in err
    assert f"They differ in {reason}" in err


def test_a_checkpoint_takes_its_keep_ratios_from_the_file_unless_told_otherwise(evovit, made):
    code, out, err = evovit("verify", made / "tiny.pth", made / "keep.onnx", "--json")
    document = json.loads(out)
    assert (code, document["passed"]) == (0, True), err
    assert set(document["cut"]) == {"kept_1", "kept_2"}
    assert not [text for text in document["differences"] if not text.startswith("weights")]
    assert "those of the model beside it are used" in err
    (made / "tiny.toml").write_text(RECIPE)
    code, out, err = evovit("verify", made / "tiny.pth", made / "keep.onnx", "--recipe", made / "tiny.toml", "--json")
    assert code == 3, err
    assert "keep ratios 0.5, 0.5 and 0.75, 0.5" in err


def test_files_that_differ_and_give_the_same_pass_with_a_note(evovit, made):
    """These random weights choose the same patches block by block as stage by stage."""
    code, _, err = evovit("verify", made / "same.onnx", made / "schedule.onnx")
    assert code == 0, err
    assert (
        "the descriptions of the two files differ, but their outputs agree. They differ in schedule stage and layer"
        in err
    )


def test_the_same_function_has_no_difference(evovit, made):
    code, out, err = evovit("verify", made / "same.onnx", made / "same.onnx", "--images", made)
    assert code == 0, err
    assert "They differ" not in err
    assert "how near a differing patch is to the cut" in err
    words = " ".join(out.split())
    for gate in (
        "images that are not finite",
        "logit error, relative",
        "cosine of the logits",
        "top-1 differs in no image",
    ):
        assert gate in words
    assert "1 images" not in words
    assert "FAILED" not in words


def test_an_image_name_is_shown_as_it_is(evovit, made):
    code, out, _ = evovit("verify", made / "same.onnx", made / "weights.onnx", "--images", made / "[white].png")
    assert code == 3
    assert "[white].png" in out


def test_a_manifest_of_an_earlier_version_opens_with_its_own_tolerances():
    document = json.loads(json.dumps(TINY.to_dict()))
    document["tolerances"]["fp16"] = {"max_abs": 0.05, "min_cosine": 0.999, "min_top1": 0.75, "min_jaccard": 0.9}
    assert Recipe.from_dict(document, "manifest").tolerances["fp16"].min_top1 == 0.75


@pytest.mark.parametrize(
    "outputs",
    [("kept",), ("kept", "probabilities")],
    ids=",".join,
)
def test_an_export_is_proven_whatever_its_outputs(outputs, tmp_path):
    three = Evolution((1, 0.5, 0.5), (1, 0.5, 0.5), stage_starts=(1, 2))
    recipe = dataclasses.replace(TINY, structure=dataclasses.replace(TINY.structure, depth=3), evolution=three)
    result = export_onnx(random_checkpoint(recipe), tmp_path / "x.onnx", ExportOptions(ModelOptions(outputs=outputs)))
    report = result.parity
    assert report.passed
    assert report.compared == (
        "log_probabilities" if "probabilities" in outputs and "logits" not in outputs else "logits"
    )
    assert set(report.jaccard) == set(report.cut) == {"kept_1", "kept_2"}
