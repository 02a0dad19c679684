"""ViTs of timm through the command line: export, and every command after it; bad input."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch

from evovit_deploy.checkpoint.options import CheckpointOptions
from evovit_deploy.export.source import ExportSource
from tests import measuring
from tests.shallow import NAME as SHALLOW

NAME = "test_vit"
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
QUICK = ("--batch", "1", "--min-seconds", "0", "--min-calls", "2", "--json")


@pytest.fixture
def evovit(evovit_on_a_line, monkeypatch):
    measuring.install(monkeypatch.setattr)
    return evovit_on_a_line


def saved(name, path) -> Path:
    """Ten classes, 96 px, in timm's names."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=10, img_size=96)
    torch.save({"state_dict": model.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return saved(NAME, tmp_path_factory.mktemp("timm") / "weights.pth")


@pytest.fixture(scope="module")
def shallow(tmp_path_factory) -> Path:
    return saved(SHALLOW, tmp_path_factory.mktemp("timm") / "weights.pth")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two classes of the digits, three images each."""
    folder = tmp_path_factory.mktemp("digits")
    for name in ("3", "7"):
        (folder / name).mkdir()
        for image in sorted((DIGITS / "test" / name).iterdir())[:3]:
            (folder / name / image.name).write_bytes(image.read_bytes())
    return folder


def test_export_and_what_comes_after(evovit, shallow, data, tmp_path):
    evolved, original = tmp_path / "evolved.onnx", tmp_path / "original.onnx"
    source = ("--from-timm", f"timm/{SHALLOW}.r160_in1k", "--weights", shallow)
    code, out, err = evovit("export", *source, "--keep", "0.6,0.3", "--outputs", "logits,kept", "-o", evolved, "--json")
    assert code == 0
    assert "keep ratio 0.3, 0.6 costs in accuracy is yours to check, with `evovit eval`" in err
    assert "evovit sweep" in err
    manifest = json.loads(out)
    assert (manifest["family"], manifest["recipe"]["baseline"]) == ("evo_vit", f"{SHALLOW}.r160_in1k")
    assert manifest["recipe"]["evolution"]["keep_ratios"] == [1, 0.6, 0.3]
    assert manifest["recipe"]["transform"]["mean"] == [0.5, 0.5, 0.5]
    assert manifest["weights"]["random"] is False
    assert manifest["parity"]["jaccard"] == {"kept_1": 1.0, "kept_2": 1.0}

    code, out, err = evovit("export", *source, "--baseline-kind", "stock", "-o", original, "--json")
    assert code == 0
    assert "accuracy" not in err, "the original leaves nothing out"
    assert (json.loads(out)["family"], json.loads(out)["variant"]) == ("vit", "stock")
    assert json.loads(out)["weights"]["sha256"] == manifest["weights"]["sha256"]

    for model in (evolved, original):
        code, _, err = evovit("verify", shallow, model)
        assert code == 0, err
    code, out, _ = evovit("inspect", evolved)
    assert code == 0
    assert "class token and 21 selected tokens" in out
    code, out, _ = evovit("predict", evolved, data, "--json")
    assert code == 0
    code, out, _ = evovit("eval", evolved, "--data", data, "--against", original, "--workers", "0", "--json")
    assert code == 0
    assert json.loads(out)["evaluated"] == 6
    code, out, _ = evovit("bench", evolved, "--baseline", original, *QUICK)
    assert code == 0
    code, out, _ = evovit("bench", evolved, *QUICK)
    assert code == 0
    assert f"{SHALLOW}.r160_in1k twin" in out


def test_keep_ratio_1_says_nothing_of_accuracy(evovit, shallow, tmp_path):
    source = ("--from-timm", SHALLOW, "--weights", shallow)
    code, _, err = evovit("export", *source, "--keep", "1", "-o", tmp_path / "m.onnx", "--no-verify")
    assert code == 0
    assert "accuracy" not in err


def test_random_weights_are_marked(evovit, tmp_path):
    arguments = ("export", "--from-timm", SHALLOW, "--img-size", "32", "--no-verify", "--json")
    code, out, err = evovit(*arguments, "-o", tmp_path / "m.onnx")
    assert code == 0
    assert json.loads(out)["weights"] == {"source": "random weights (seed 0)", "random": True, "sha256": None}
    assert json.loads(out)["recipe"]["structure"]["image_size"] == 32
    assert "the classes mean nothing" in err


def test_weights_alone_with_the_commands_that_read_checkpoints(evovit, weights, data, tmp_path):
    name = ("--from-timm", NAME)
    code, out, _ = evovit("eval", weights, *name, "--data", data, "--workers", "0", "--json")
    assert code == 0
    assert json.loads(out)["evaluated"] == 6
    code, out, err = evovit("explain", weights, data / "3", *name, "-o", tmp_path / "seen", "--json")
    assert code == 0
    assert "class attention" not in err, "a checkpoint shows it"
    selections = json.loads(out)["summary"]["selections"]
    assert [(part["kept"], part["grid"]) for part in selections] == [(18, 6), (18, 6)]
    how = (*name, "--method", "evo", "--keep", "0.25")
    code, out, _ = evovit("inspect", weights, *how)
    assert code == 0
    assert "class token and 9 selected tokens" in out
    code, out, _ = evovit("bench", weights, *how, "--backend", "pytorch", "--baseline", "none", *QUICK)
    assert code == 0
    assert "keep ratio 0.25 costs in accuracy" in out
    assert evovit("predict", weights, data, *how)[0] == 0


def test_bench_a_name_with_random_weights(evovit):
    how = ("--random-weights", "--backend", "pytorch", "--baseline", "none", *QUICK)
    code, out, _ = evovit("bench", "--from-timm", NAME, "--method", "evo", *how)
    assert code == 0
    assert f"evo_{NAME}" in out


def test_sweep_tries_several_methods_beside_one_full_model(evovit, weights, data, tmp_path):
    source = ("--from-timm", NAME, "--weights", weights, "--data", data, "-o", tmp_path / "sweep")
    how = (
        "--ratios",
        "0.5",
        "--quick",
        "--workers",
        "0",
        "--backend",
        "pytorch",
        "--axis",
        "macs",
        "--max-drop",
        "100",
    )
    code, out, _ = evovit("sweep", *source, "--method", "evo,evit,tome", "--r", "3", *how, "--json")
    assert code == 0
    found = {one["name"]: one for one in json.loads(out)["outcomes"]}
    assert list(found) == ["full", "evo_stage_0.5_0.5", "evit_stage_0.5_0.5_0.5", "tome_r_3"]
    assert [one["method"] for one in found.values()] == ["evo", "evo", "evit", "tome"]
    assert len({one["full_macs"] for one in found.values()}) == 1
    assert found["evit_stage_0.5_0.5_0.5"]["macs"] < found["evo_stage_0.5_0.5"]["macs"] < found["full"]["macs"]
    picked = json.loads(out)["picked"]
    recipe = (tmp_path / "sweep" / "recipe.toml").read_text()
    assert f'family = "{found[picked]["method"]}_vit"' in recipe


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "evo,evot"), "method 'evot' is unknown; valid: evo"),
        (("--method", "evo,evit", "--r", "3"), "--r is not for timm ViT, evolved, timm ViT, EViT"),
        (("--method", "evo,evit", "--search", "--max-drop", "1"), "--search is for one method"),
        (("--method", "evo,evit", "--schedule", "layer"), "has no layer schedule, only stage. Leave --schedule out."),
        (("--method", "tome", "--schedule", "layer"), "has no layer schedule, only block. Leave --schedule out."),
        (("--method", "tome", "--ratios", "0.5"), "(ToMe), which takes --r."),
        (("--method", "evo,,evit"), "method '' is unknown; valid: evo, tome, evit."),
    ],
)
def test_sweeps_of_methods_that_cannot_be(evovit, weights, data, tmp_path, options, words):
    source = ("--from-timm", NAME, "--weights", weights, "--data", data, "-o", tmp_path / "sweep")
    code, _, err = evovit("sweep", *source, *options)
    assert (code, words in err) == (2, True), err
    assert not (tmp_path / "sweep").exists()


def test_sweep_and_the_recipe_it_writes(evovit, shallow, data, tmp_path):
    arguments = ("--ratios", "0.5", "--quick", "--workers", "0", "--max-drop", "100", "-o", tmp_path / "sweep")
    arguments += ("--backend", "pytorch")  # tests/sweep/test_runner.py sweeps exports
    code, out, _ = evovit("sweep", "--from-timm", SHALLOW, "--weights", shallow, "--data", data, *arguments)
    assert code == 0
    following = re.search(r"next: evovit export (\S+) --recipe (\S+)", out)
    assert following
    assert following[1] == str(shallow)
    recipe = following[2]
    code, out, _ = evovit("export", shallow, "--recipe", recipe, "-o", tmp_path / "m.onnx", "--json")
    assert code == 0
    assert json.loads(out)["recipe"]["baseline"] == SHALLOW
    code, out, _ = evovit("bench", shallow, "--recipe", recipe, "--backend", "pytorch", *QUICK)
    assert code == 0
    assert "random weights" not in out, "the twin has the weights too"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--from-timm", "vit_smal_patch16_224"), 2, "vit_small_patch16_224"),
        (("--from-timm", "vit_base_patch16_siglip_224"), 2, "no class token"),
        (("--from-timm", "vit_base_patch16_rope_224"), 2, "Supported are timm's plain ViTs"),
        (("--from-timm", f"{NAME}.nope"), 2, "Valid: r160_in1k"),
        (("--from-timm", NAME, "--img-size", "100"), 2, "96 or 112"),
        (("--from-timm", NAME, "--keep", "0.5,0.5,0.5"), 2, "1 (for all stages), 2 (one per stage) or 6"),
        (("--from-timm", NAME, "--keep", "0.001"), 2, "keeps no patch of 100"),
        (("--from-timm", NAME, "--recipe", "evo_deit_small_patch16_224"), 2, "is for 12 blocks"),
        (("--from-timm", NAME, "--num-heads", "2"), 2, "Leave them out"),
        (("--from-timm", NAME, "--baseline-kind", "twin", "--keep", "0.5"), 2, "keeps every patch"),
        (("--from-timm", NAME, "--baseline", "deit_small_patch16_224"), 2, "give one of"),
        (("--from-timm", NAME, "--weights", "none.pth"), 2, "none.pth: no such file"),
        (("--weights", "none.pth", "--baseline", "deit_small_patch16_224"), 2, "needs the name of the model in timm"),
        (("--from-timm", NAME, "--method", "evot"), 2, "'evot' is not one of 'evo'"),
        (("--from-timm", NAME, "--method", "evit", "--keep", "0.5,0.5"), 2, "3 (one per place: blocks 2, 3, 4) or 6"),
        (("--from-timm", NAME, "--method", "evit", "--keep", "0"), 2, "keep ratio 0 is impossible"),
        (("--from-timm", NAME, "--method", "evit", "--schedule", "layer"), 2, "has the stage schedule only"),
        (
            ("--from-timm", NAME, "--method", "evit", "--recipe", "evo_deit_tiny_patch16_224"),
            2,
            "takes one of evit or evit_vit",
        ),
        (("--from-timm", NAME, "--r", "8"), 2, "--r is not for timm ViT, evolved, which takes --keep"),
        (("--from-timm", NAME, "--r", "eight"), 2, "for example: --r 8"),
        (("--from-timm", NAME, "--baseline-kind", "twin", "--method", "evo"), 2, "Leave out --method"),
        (("--method", "evo", "--recipe", "evo_deit_tiny_patch16_224", "--random-weights"), 2, "a recipe says its own"),
        (
            ("--pool", "avg", "--recipe", "evo_deit_tiny_patch16_224", "--random-weights"),
            2,
            "--pool is for timm models",
        ),
    ],
)
def test_bad_options(evovit, tmp_path, options, code, words):
    found, _, err = evovit("export", *options, "-o", tmp_path / "m.onnx")
    assert found == code
    assert words in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_weights_without_a_name_are_pointed_there(evovit, weights, tmp_path):
    code, _, err = evovit("export", weights, "--method", "evo", "-o", tmp_path / "m.onnx")
    assert code == 1
    assert f"--weights {weights} --method evo`" in err
    assert f"--weights {weights}" in err
    assert "evovit export --from-timm" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["export", "sweep"])
def test_weights_are_an_argument_or_an_option_and_not_both(evovit, weights, data, tmp_path, command):
    where = ("--data", data, "-o", tmp_path / "swept") if command == "sweep" else ("-o", tmp_path / "m.onnx")
    code, _, err = evovit(command, weights, "--from-timm", NAME, "--weights", weights, *where)
    assert code == 2
    assert "are both weights of --from-timm" in err
    assert list(tmp_path.iterdir()) == []


def test_weights_as_an_argument_are_the_weights(weights):
    options = CheckpointOptions(from_timm=NAME)
    given, named = (ExportSource(*files).load() for files in ((weights, options), (None, options, weights)))
    assert given.recipe == named.recipe
    assert given.notes == named.notes
    assert given.export.args[0].sha256 == named.export.args[0].sha256 is not None


@pytest.mark.parametrize("option", ["--seed", "--random-weights"])
def test_what_is_for_random_weights_is_refused_beside_a_file(evovit, weights, tmp_path, option):
    value = ("3",) if option == "--seed" else ()
    for source in (
        (weights, "--from-timm", NAME),
        ("--from-timm", NAME, "--weights", weights),
        (DIGITS / "evo_deit_digits.pth",),
    ):
        code, _, err = evovit("export", *source, option, *value, "-o", tmp_path / "m.onnx")
        assert code == 2
        assert option in err
    assert list(tmp_path.iterdir()) == []
