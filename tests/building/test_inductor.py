"""Building inductor engines: the graph that the compiler gets, what is asked for, and what is left behind when it fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evovit_deploy import random_checkpoint
from evovit_deploy.building import inductor as building
from evovit_deploy.engines.inductor import compiling
from evovit_deploy.engines.inductor.compiling import attentions, export_program
from evovit_deploy.engines.inductor.options import Batches
from evovit_deploy.errors import EngineError, ExportError, InputError, OutputError, ParityError
from evovit_deploy.models.build import build_model
from evovit_deploy.models.ops import Lowered, gather_tokens
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.models.vanilla import build_stock, build_twin, vanilla_recipe
from evovit_deploy.recipes import Recipe, load_recipe
from evovit_deploy.storage.files import sha256
from tests.cli.test_bench import MICRO
from tests.engines.fake_inductor import Compiler
from tests.exporting import names, run

ENGINE = ("--format", "engine", "--target", "inductor")


@pytest.fixture(scope="module")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "micro.toml"
    path.write_text(MICRO)
    return path


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler().install(monkeypatch)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evolved(recipe: Recipe, **options: Any) -> Any:
    return build_model(recipe, random_checkpoint(recipe).state, ModelOptions(**options))


BUILT: dict[str, Callable[[Recipe], Any]] = {
    "evo": lambda recipe: evolved(recipe, outputs=("logits", "kept")),
    "evo uint8 bf16": lambda recipe: evolved(recipe, image_input="uint8", precision="bf16"),
    "features": lambda recipe: evolved(recipe, outputs=("embedding", "patch_tokens", "block_1", "kept")),
    "twin": lambda recipe: build_twin(vanilla_recipe(recipe), ModelOptions()),
    "stock": lambda recipe: build_stock(vanilla_recipe(recipe), ModelOptions()),
}


@pytest.mark.parametrize("kind", BUILT)
@pytest.mark.parametrize("sizes", [(1, 1), (1, 64)])
def test_the_graph_keeps_one_fused_attention_a_block_and_no_operator_of_ours(
    micro: Path, kind: str, sizes: tuple[int, int]
) -> None:
    recipe = load_recipe(str(micro))
    module = BUILT[kind](recipe)
    program = export_program(module, module.output_names, *sizes)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert attentions(program) == recipe.structure.depth
    assert not [target for target in targets if "softmax" in target and kind in ("twin", "stock")]
    assert not [target for target in targets if "evovit" in target]


def test_outputs_that_are_not_asked_for_are_left_out(micro: Path) -> None:
    module = evolved(load_recipe(str(micro)), outputs=("logits", "kept"))
    both, one = (export_program(module, chosen, 2, 2) for chosen in (("logits", "kept_1"), ("kept_1",)))
    assert [len(program.graph_signature.user_outputs) for program in (both, one)] == [2, 1]


def test_an_operator_of_ours_is_refused() -> None:
    class Gathers(Lowered):
        output_names, image_input = ("logits",), "float32"
        structure = SimpleNamespace(image_size=8)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            tokens = images.flatten(2)
            return (gather_tokens(tokens, torch.zeros(len(images), 1, dtype=torch.int64)),)

    with pytest.raises(ExportError, match=r"operators that no other process knows.*evovit\.gather_tokens"):
        export_program(Gathers().eval(), ("logits",), 2, 2)


def test_one_file_its_manifest_and_no_onnx(compiler: Compiler, micro: Path, out: Path) -> None:
    result = run("--recipe", micro, "--random-weights", *ENGINE, "--outputs", "logits,kept", "--json")
    document = json.loads(result.stdout)
    path = Path(document["path"])
    assert path.name.endswith("_fp32.pt2")  # for a CPU
    assert names(out) == {path.name, f"{path.name}.json"}
    assert {key: value for key, value in document.items() if key != "path"} == json.loads(
        (out / f"{path.name}.json").read_text()
    )
    assert document["package"]["sha256"] == sha256(path)
    assert document["parity"]["passed"] is True
    assert document["parity"]["jaccard"]["kept_1"] == 1
    assert document["model"]["outputs"] == ["logits", "kept_1"]
    assert compiler.compiled == [(Batches(1, 64), "cpu")]


@pytest.mark.parametrize(
    ("options", "batches", "stem"),
    [
        (("--batch", "8"), Batches.static(8), "_fp32_b8"),
        (("--batch", "8,1"), Batches.static(1, 8), "_fp32"),
        (("--min-batch", "2", "--max-batch", "4"), Batches(2, 4), "_fp32"),
        (("--min-batch", "4", "--max-batch", "4"), Batches.static(4), "_fp32"),
        (("--precision", "bf16"), Batches(1, 64), "_bf16"),
    ],
)
def test_what_is_asked_for(
    compiler: Compiler, micro: Path, out: Path, options: tuple[str, ...], batches: Batches, stem: str
) -> None:
    result = run("--recipe", micro, "--random-weights", *ENGINE, "--device", "cpu", *options, "--no-verify")
    assert compiler.compiled == [(batches, "cpu")]
    assert any(name.endswith(f"{stem}.pt2") for name in names(out)), names(out)
    assert f"batch {batches}" in result.stdout
    assert "not proven" in result.stdout


def test_the_twin_too(compiler: Compiler, out: Path) -> None:
    result = run("--baseline", "deit_tiny_patch16_224", *ENGINE, "-o", "t.pt2", "--no-verify", "--json")
    assert json.loads(result.stdout)["model"]["variant"] == "twin"


def test_another_function_leaves_what_was_there(compiler: Compiler, micro: Path, out: Path) -> None:
    words = ("--recipe", micro, "--random-weights", *ENGINE, "-o", "m.pt2")
    run(*words)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    compiler.wrong = 1.0
    with pytest.raises(ParityError, match="the compiled model is not the checkpoint's") as caught:
        run(*words)
    assert caught.value.exit_code == 3
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_file_of_the_users_is_not_replaced(compiler: Compiler, micro: Path, out: Path) -> None:
    (out / "m.pt2").write_text("mine")
    with pytest.raises(OutputError, match=r"m\.pt2 exists, and evovit did not write it"):
        run("--recipe", micro, "--random-weights", *ENGINE, "-o", "m.pt2")
    assert (out / "m.pt2").read_text() == "mine"


def test_a_compiler_that_fails_or_is_cancelled_leaves_nothing(
    compiler: Compiler, micro: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (EngineError("AOTInductor could not compile the model: no space"), KeyboardInterrupt()):

        def fail(*arguments: Any, error: BaseException = error) -> None:
            arguments[2].write_bytes(b"half")
            raise error

        monkeypatch.setattr(compiling, "compile_package", fail)
        words = ("--recipe", micro, "--random-weights", *ENGINE, "-o", "m.pt2")
        if isinstance(error, EngineError):
            with pytest.raises(EngineError, match="could not compile"):
                run(*words)
        else:
            assert run(*words).exit_code == 130
        assert names(out) == set()


def test_no_compiler_shows_before_anything_is_made(micro: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(building, "build_inductor", lambda *a, **k: pytest.fail("the build began"))
    with pytest.raises(EngineError, match=r"no-such-compiler was not found\. Install one") as caught:
        run("--recipe", micro, "--random-weights", *ENGINE)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ((*ENGINE, "--opt-batch", "4"), InputError, "--opt-batch: --target inductor goes neither through ONNX"),
        ((*ENGINE, "--profile", "l4", "--max-kernels", "9"), InputError, "--profile, --max-kernels: --target inductor"),
        ((*ENGINE, "--require-fused-attention"), InputError, "--require-fused-attention: --target inductor"),
        ((*ENGINE, "--opset", "20"), InputError, "--opset: --target inductor"),
        ((*ENGINE, "--attention", "operator"), InputError, "--attention: --target inductor"),
        ((*ENGINE, "--batch", "4", "--max-batch", "8"), InputError, "either static batch sizes"),
        ((*ENGINE, "--min-batch", "8", "--max-batch", "4"), InputError, "batch sizes 8 to 4"),
        ((*ENGINE, "-o", "m.engine"), InputError, r"m\.engine is not a name for an inductor engine.* name it m\.pt2"),
        ((*ENGINE, "-o", "m"), InputError, r"name it m\.pt2"),
        ((*ENGINE, "-o", "no/m.pt2"), OutputError, "mkdir -p no"),
        (("-o", "m.pt2"), InputError, r"add --format engine --target inductor, or name it m\.onnx"),
        (("--device", "cpu"), InputError, "--device: only an engine has that"),
        (("--target", "inductor"), InputError, "--target: only an engine has that; add --format engine"),
        (("--batch", "1,8"), InputError, "only an inductor engine has several static sizes"),
        (("--format", "engine", "--device", "cuda"), InputError, "--device cuda: only --target inductor has that"),
        (("--format", "engine", "--batch", "1,8"), InputError, "only an inductor engine has several static sizes"),
        (("--format", "engine", "-o", "m.pt2", "--target", "tensorrt-rtx"), InputError, "not a name for an engine"),
    ],
)
def test_mistakes_show_before_anything_is_made(
    compiler: Compiler, micro: Path, out: Path, options: tuple[str, ...], error: type[Exception], message: str
) -> None:
    if "tensorrt-rtx" in options:
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    with pytest.raises(error, match=message):
        run("--recipe", micro, "--random-weights", *options)
    assert names(out) == set()
    assert compiler.compiled == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_to_compile_for(compiler: Compiler, micro: Path, out: Path) -> None:
    with pytest.raises(EngineError, match="PyTorch cannot use a GPU here"):
        run("--recipe", micro, "--random-weights", *ENGINE, "--device", "cuda")
    assert names(out) == set()
