"""One rule for which output holds the class scores, in every command, for every choice of ``--outputs``."""

from __future__ import annotations

import io
import itertools
import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from evovit_deploy import Engine, ExportOptions, InputError, ModelFileError, export_onnx
from evovit_deploy.bench.accuracy import top1
from evovit_deploy.building.onnx_facts import read_onnx
from evovit_deploy.classes.scores import scores_output
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.packages.triton import TritonOptions, package_triton
from evovit_deploy.serve import classify
from evovit_deploy.serve.decoding import PixelBudget
from tests.export.conftest import TINY

KINDS = ("logits", "probabilities", "kept")
CHOICES = [choice for count in (1, 2, 3) for choice in itertools.permutations(KINDS, count)]
CLASSES = TINY.structure.num_classes
every_choice = pytest.mark.parametrize("choice", CHOICES, ids=",".join)


def scores_in(choice):
    return next((name for name in ("logits", "probabilities") if name in choice), None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file for every choice, made from one export: the graph's outputs in that order, as `export` leaves them."""
    from evovit_deploy import random_checkpoint

    folder = tmp_path_factory.mktemp("outputs")
    options = ExportOptions(ModelOptions(image_input="uint8", outputs=KINDS), prove=False)
    whole = onnx.load(export_onnx(random_checkpoint(TINY), folder / "whole.onnx", options).path)
    manifest = next(entry for entry in whole.metadata_props if entry.key == "evovit")
    outputs = {output.name: output for output in whole.graph.output}
    document, made = json.loads(manifest.value), {}
    for choice in CHOICES:
        names = [name for kind in choice for name in outputs if name.startswith(kind)]
        del whole.graph.output[:]
        whole.graph.output.extend(outputs[name] for name in names)
        manifest.value = json.dumps({**document, "outputs": names})
        made[choice] = folder / f"{'_'.join(choice)}.onnx"
        onnx.save(whole, made[choice])
    return made


@pytest.fixture(scope="module")
def photos(files, tmp_path_factory):
    """Images in folders named by the class that the logits say, which is what every command has to find."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    with Engine.open(files[("logits",)], provider="cpu") as engine:
        for number in range(4):
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            place = folder / str(int(engine(pixels[None])["logits"].argmax()))
            place.mkdir(exist_ok=True)
            Image.fromarray(pixels).resize((73, 73), Image.Resampling.NEAREST).save(place / f"{number}.png")
        answers = {}
        for path in sorted(folder.glob("*/*.png")):  # the resized image is what a command sees
            from evovit_deploy.images.decode import load_image
            from evovit_deploy.images.transform import preprocess

            row = engine(preprocess(load_image(path), engine.spec.transform, 64, "uint8")[None])["logits"][0]
            answers[path] = int(row.argmax())
    for path, number in answers.items():
        target = folder / str(number)
        target.mkdir(exist_ok=True)
        path.rename(target / path.name)
    for place in folder.iterdir():
        if not any(place.iterdir()):
            place.rmdir()
    return folder


@pytest.fixture
def evovit(evovit_on_a_line):
    return evovit_on_a_line


def check(code, out, err, choice):
    """The JSON document of a command that succeeded; None for one that said that there are no class scores."""
    if scores_in(choice) is None:
        assert (code, out) == (2, ""), err
        assert "gives no class scores: its outputs are kept_1, kept_2. Export it again with --outputs logits" in err
        return None
    assert code == 0, err
    return json.loads(out)


@every_choice
def test_predict(evovit, files, photos, choice):
    document = check(*evovit("predict", files[choice], photos, "--accuracy", "--json"), choice)
    assert document is None or document["accuracy"]["top1"] == 1


@every_choice
def test_eval(evovit, files, photos, choice):
    document = check(*evovit("eval", files[choice], "--data", photos, "--workers", 0, "--json"), choice)
    assert document is None or document["accuracy"]["top1"]["value"] == 1


@every_choice
def test_accuracy_in_bench(files, photos, choice):
    truth = {path: int(path.parent.name) for path in photos.glob("*/*.png")}
    with Engine.open(files[choice], provider="cpu") as engine:
        assert engine.spec.scores == scores_in(choice)
        if engine.spec.scores is None:
            with pytest.raises(InputError, match="no class scores"):
                top1(engine, truth)
        else:
            assert top1(engine, truth) == 1


@pytest.mark.parametrize("choice", [("kept",), ("kept", "probabilities")], ids=",".join)
def test_bench_times_any_file(evovit, files, photos, choice, monkeypatch):
    path = files[choice]
    model = onnx.load(path)
    manifest = next(entry for entry in model.metadata_props if entry.key == "evovit")
    document = json.loads(manifest.value)
    manifest.value = json.dumps({**document, "weights": {**document["weights"], "random": False}})
    path = path.with_name("trained.onnx")
    onnx.save(model, path)
    quick = ("--min-seconds", 0.01, "--min-calls", 1, "--warmup", 0, "--batch", 1, "--baseline", "none")
    code, out, err = evovit("bench", path, "--images", photos, *quick, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document["points"][0]["images_per_second"] > 0
    assert document["subjects"][0]["facts"]["top1"] == (None if choice == ("kept",) else 1)
    assert any("no class scores" in note for note in document["notes"]) is (choice == ("kept",))


@every_choice
def test_verify(evovit, files, choice):
    """Against logits and kept sets; against probabilities a file with kept sets only has nothing in common."""
    code, out, err = evovit("verify", files[("logits", "kept")], files[choice], "--json")
    assert code == 0, err
    document = json.loads(out)
    scores = {None: None, "logits": "logits", "probabilities": "log_probabilities"}[scores_in(choice)]
    assert (document["compared"], set(document["jaccard"])) == (
        scores,
        {"kept_1", "kept_2"} if "kept" in choice else set(),
    )
    code, out, err = evovit("verify", files[("probabilities",)], files[choice], "--json")
    if choice == ("kept",):
        assert code == 2
        assert "nothing to compare: the reference gives probabilities, the other model kept_1, kept_2" in err
    else:
        assert code == 0, err
        assert json.loads(out)["compared"] == "log_probabilities"


@every_choice
def test_explain(evovit, files, photos, choice, tmp_path):
    code, out, err = evovit("explain", files[choice], photos, "-o", tmp_path / "out", "--json")
    if "kept" not in choice:
        assert code == 2
        assert "does not say which patches it keeps" in err
        return
    assert code == 0, err
    images = json.loads(out)["images"]
    assert len(images) == 4
    for image in images:
        found = [entry["class"] for entry in image["classes"][:1]]
        assert found == ([] if scores_in(choice) is None else [int(image["path"].split("/")[-2])])


@every_choice
def test_serve(files, photos, choice):
    stream = io.BytesIO()
    path = next(photos.glob("*/*.png"))
    Image.open(path).save(stream, "PNG")
    with Engine.open(files[choice], provider="cpu") as engine:
        model = SimpleNamespace(engine=engine, labels=None)
        if scores_in(choice) is None:
            with pytest.raises(InputError, match="no class scores"):  # 400, before the image is decoded
                classify.decode(stream.getvalue(), model, PixelBudget(10**6), 10**6)
            return
        images = classify.decode(stream.getvalue(), model, PixelBudget(10**6), 10**6).images
        assert classify.top_classes(model, engine(images), 1)[0]["class"] == int(path.parent.name)


@every_choice
def test_package_triton(files, choice, tmp_path):
    pytest.importorskip("tritonclient.grpc")
    labels = [f"class {number}" for number in range(CLASSES)]
    if scores_in(choice) is None:
        with pytest.raises(InputError, match="no class scores"):
            package_triton(files[choice], tmp_path, TritonOptions(name="m"), labels=labels)
        assert not list(tmp_path.iterdir())
        package_triton(files[choice], tmp_path, TritonOptions(name="m"))
        return
    text = (
        package_triton(files[choice], tmp_path, TritonOptions(name="m"), labels=labels) / "config.pbtxt"
    ).read_text()
    labelled = [block for block in text.split("output {")[1:] if "label_filename" in block.split("}")[0]]
    assert len(labelled) == len({"logits", "probabilities"} & set(choice))
    assert not any("kept_" in block.split("}")[0] for block in labelled)


@every_choice
def test_build_knows_the_classes(files, choice):
    facts = read_onnx(files[choice])
    assert facts.scores == scores_in(choice)
    assert facts.num_classes == (0 if facts.scores is None else CLASSES)


def foreign(path, **outputs):
    """A model of another tool: name -> number of columns of the sums of the image, or [B, 1, 1] for None."""
    nodes, values = [], []
    for name, columns in outputs.items():
        axes = helper.make_tensor(f"{name}_axes", TensorProto.INT64, [2], [2, 3])
        nodes.append(helper.make_node("Constant", [], [f"{name}_a"], value=axes))
        nodes.append(helper.make_node("ReduceSum", ["image", f"{name}_a"], [name], keepdims=0 if columns else 1))
        shape = ["batch", 3] if columns else ["batch", 3, 1, 1]
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    graph = helper.make_graph(nodes, "foreign", [image], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("outputs", "scores"),
    [
        ({"maps": 0, "scores": 3}, "scores"),  # the only one of the shape, not the first
        ({"features": 3, "logits": 3}, "logits"),
        ({"features": 3, "probabilities": 3}, "probabilities"),
        ({"features": 3, "scores": 3}, None),
    ],
)
def test_a_file_of_another_tool(evovit, tmp_path, outputs, scores):
    path = foreign(tmp_path / "foreign.onnx", **outputs)
    with Engine.open(path, provider="cpu") as engine:
        assert engine.spec.scores == scores
        assert engine.spec.outputs == tuple(outputs)
        assert engine.spec.num_classes == (3 if scores else 0)
    assert read_onnx(path).scores == scores
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    code, _, err = evovit("predict", path, tmp_path / "a.png", "--json")
    assert code == (0 if scores else 2), err
    assert scores or "which of its outputs holds the class scores: features, scores" in err


def test_a_file_without_any_class_scores_is_no_classifier(tmp_path):
    path = foreign(tmp_path / "foreign.onnx", maps=0)
    with pytest.raises(ModelFileError, match=r"none of its outputs \(maps .*\) is floating point and \[B, classes\]"):
        Engine.open(path, provider="cpu")


def test_the_rule():
    assert scores_output(["probabilities", "features", "logits"]) == "logits"
    assert scores_output(["features", "probabilities"]) == "probabilities"
    assert scores_output(["features"]) == "features"
    assert scores_output(["features", "scores"]) is None
    assert scores_output([]) is None
