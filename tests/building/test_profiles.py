from __future__ import annotations

from pathlib import Path

import pytest

from evovit_deploy.building.profiles import BuildProfile, load_profile, profile_names
from evovit_deploy.engines.trt.options import BatchProfile, BuildOptions
from evovit_deploy.errors import InputError, RecipeError
from evovit_deploy.storage.tables import build_table, read_toml


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_every_target_has_a_profile() -> None:
    names = {"h100", "a100", "l4", "t4", "rtx_ada", "rtx_blackwell", "jetson_orin", "rtx_ahead_of_time"}
    assert set(profile_names()) == names


@pytest.mark.parametrize("name", profile_names())
def test_shipped_profiles_load_and_say_why(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description
    assert "measured" in profile.reasons
    assert profile.gpus
    rtx = name.startswith("rtx")
    assert profile.options.target == ("tensorrt-rtx" if rtx else "tensorrt")
    if profile.options.compute_capabilities:
        assert profile.options.compute_capabilities == (profile.compute_capability,)


def test_a_profile_by_path(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.toml",
        'description = "d"\nreasons = "r"\n[options]\nmax_batch = 4\ncompute_capabilities = ["8.6"]\n',
    )
    profile = load_profile(path)
    assert (profile.name, profile.options.max_batch, profile.options.compute_capabilities) == ("mine", 4, ("8.6",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('description = "d"\nreasons = "r"\nspeed = 1\n', "unknown key 'speed'; valid: name, description"),
        ('description = "d"\nreasons = "r"\n[options]\nturbo = true\n', "options: unknown key 'turbo'"),
        ('description = "d"\n', "'reasons' is missing"),
        ('description = "d"\nreasons = "r"\n[options]\nmax_batch = 0\n', "max_batch is 0"),
        ('description = "d"\nreasons = "r"\n[options]\nmin_batch = 9\nmax_batch = 4\n', "must ascend"),
        ('description = "d"\nreasons = "r"\n[options]\ncompute_capabilities = ["sm86"]\n', "look like 8.6"),
        ('description = "d"\nreasons = "r"\noptions = 3\n', "options must be a table, not int"),
        ('name = "x"\ndescription = "d"\nreasons = "r"\n', "unknown key 'name'"),
        ("not toml", "not a readable TOML file"),
    ],
)
def test_mistakes_in_a_profile_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_profile(write(tmp_path / "p.toml", text))
    assert "p.toml" in str(caught.value)


def test_an_unknown_profile_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no profile called 'h9000'.*a100, h100"):
        load_profile("h9000")


def test_what_is_given_overrules_the_profile() -> None:
    profile = load_profile("h100")
    assert profile.with_options().profile() == BatchProfile(1, 64, 256)
    assert profile.with_options(max_batch=32).profile() == BatchProfile(1, 8, 32)
    assert profile.with_options(max_batch=512).profile() == BatchProfile(1, 64, 512)
    static = profile.with_options(batch=4, target="tensorrt-rtx")
    assert (static.profile(), static.target) == (BatchProfile(4, 4, 4), "tensorrt-rtx")
    base = BuildProfile("x", "d", "r", options=BuildOptions(batch=4))
    assert base.with_options(max_batch=16).profile() == BatchProfile(1, 8, 16)


@pytest.mark.parametrize(
    ("options", "static", "profile"),
    [
        ({}, None, (1, 8, 64)),
        ({"max_batch": 4}, None, (1, 4, 4)),
        ({"opt_batch": 100}, None, (1, 100, 100)),
        ({"min_batch": 16}, None, (16, 16, 64)),
        ({"batch": 3}, None, (3, 3, 3)),
        ({}, 5, (5, 5, 5)),
        ({"batch": 5}, 5, (5, 5, 5)),
    ],
)
def test_batch_profiles(options: dict[str, int], static: int | None, profile: tuple[int, int, int]) -> None:
    assert BuildOptions(**options).profile(static) == BatchProfile(*profile)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0}, {"batch": True}, {"batch": 2, "max_batch": 4}, {"min_batch": 5, "opt_batch": 2}, {"target": "cuda"},
        {"tiling": "most"}, {"hardware_compatibility": "all"}, {"optimization_level": 6}, {"precision": "int8"},
        {"compute_capabilities": ("86",)}, {"compute_capabilities": "8.6"}, {"max_kernels": -1},
    ],
)  # fmt: skip
def test_impossible_options(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        BuildOptions(**options)  # type: ignore[arg-type]


def test_a_static_onnx_file_takes_no_other_batch() -> None:
    with pytest.raises(InputError, match="static batch of 4, so batches 1 to 8 are impossible"):
        BuildOptions(max_batch=8).profile(4)


def test_options_as_a_command() -> None:
    options = BuildOptions(
        target="tensorrt-rtx", batch=4, compute_capabilities=("8.6", "12.0"), timing_cache=False, refit=True
    )
    assert options.command("a b.onnx", "x.engine") == (
        "evovit build 'a b.onnx' -o x.engine --target tensorrt-rtx --batch 4 --refit --compute-capability 8.6,12.0 "
        "--no-timing-cache"
    )
    assert BuildOptions().command("m.onnx", "m.engine") == "evovit build m.onnx -o m.engine"


def test_tables_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="here must be a table"):
        build_table(BatchProfile, [1], "here")
    with pytest.raises(RecipeError, match="here: 'opt' is missing"):
        build_table(BatchProfile, {"min": 1, "max": 2}, "here")
    assert build_table(BatchProfile, {"min": 1, "opt": 2, "max": 3}, "here") == BatchProfile(1, 2, 3)
    with pytest.raises(RecipeError, match="not a readable TOML file"):
        read_toml(tmp_path / "none.toml")
