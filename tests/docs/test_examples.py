"""Every code block of the README and the docs runs as it is printed, or stands in a table here that says why not."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import runpy
import shlex
import shutil
import socket
import string
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch

from evovit_deploy import export_onnx, load_checkpoint
from evovit_deploy.building.build import build_engine
from evovit_deploy.cli import app, main
from evovit_deploy.engines.trt.options import BuildOptions
from evovit_deploy.errors import EngineError
from evovit_deploy.export import ExportOptions
from evovit_deploy.models.options import ModelOptions
from tests import measuring, warm

from . import stand_ins
from .pages import PAGES, ROOT, Block, blocks

DIGITS = ROOT / "examples" / "digits"
# Commands that are not run here: where they begin, and why.
NOT_RUN = {
    "make ": "CI runs make test; tests/cli/test_terminal.py runs the demo",
    ". .venv/bin/activate": "the tests run in it",
    "pip install": "needs a package index",
    "docker ": "needs a container engine",
    "kubectl ": "needs a cluster",
    "evovit bench --suite": "takes minutes; tests/cli/test_bench_suites.py runs suites",
    "evovit bench compare": "two short runs may differ; tests/cli/test_bench_records.py compares known ones",
    "evovit export ckpt.pth --format engine --target inductor": "compiles; tests/conftest.py compiles the digits so",
    "evovit gpu-check": "needs a GPU; tests/gpucheck runs it on the CPU",
    "python examples/dinov2/prepare.py": "fetches from two package registries",
    "evovit sweep --from-timm vit_small_patch14_dinov2": "needs what that fetches; tests/sweep/test_recorded.py has its record",
    "serve deploy": "tests/serve/test_ray.py deploys such a file",
    "evovit serve digits=digits.onnx --ray": "tests/serve/test_ray.py serves so",
    "evovit predict digits.onnx photos/ --ray": "tests/serve/test_ray.py predicts so",
}
# Blocks that are run by another test, by their first line.
ELSEWHERE = {
    "# fastapi": "tests/serve/test_docs.py",
    "# worker": "tests/serve/test_docs.py",
    "# video": "tests/serve/test_docs.py",
    "# ray data": "tests/serve/test_ray.py",
    "# ray\n": "tests/cluster/test_ray_options.py",
}
# What takes a command long and shows nothing more of it: what it is run with instead. Exporting takes as long as there are
# blocks: the models of stand_ins.py have three or four.
SHORTER = {
    "--ratios 0.5,0.7,0.9": "--ratios 0.5",
    "--max-drop 5 --tries 4": "--max-drop 5 --tries 3",
    "--ratios 0.7 -o methods": "--ratios 0.7 -o methods --backend pytorch",
    "vit_small_patch14_reg4_dinov2.lvd142m": "shallow_vit",
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k --weights vit.safetensors": "shallow_vit --weights shallow_vit.safetensors",
    "vit_tiny_patch16_224 --weights vit.safetensors": "shallow_vit --weights shallow_vit.safetensors",
    "export vit.safetensors": "export shallow_vit.safetensors",
    '"vit.safetensors", timm="vit_tiny_patch16_224.augreg_in21k_ft_in1k"': '"shallow_vit.safetensors", timm="shallow_vit"',
    "deit_tiny_patch16_224 --weights deit.safetensors --": "shallow_vit --weights shallow_vit.safetensors --",
    "evo_deit_small_patch16_224 --random-weights": "small.toml --random-weights",
    "evo_levit_128s_224 --random-weights": "levit.toml --random-weights",
    "--outputs embedding,patch_tokens,blocks=2,5": "--outputs embedding,patch_tokens,blocks=1,2",
    'found["block_2"], found["block_5"]': 'found["block_1"], found["block_2"]',
    "--baseline levit_128s_224": "--baseline levit_128s_224 --precision fp16",  # which tests/building/test_levit_plan.py exports
}
# Pages on which `ckpt.pth` is what `model.pt2` was compiled from, once for all tests; on others it is an EViT of three blocks.
COMPILED = {"docs/inductor.md"}
NEEDS_GPU = "# on a machine with the GPU"
# Commands that cannot end well on a machine without a GPU: the engine that they would run needs one.
NO_GPU = {
    "evovit verify model.onnx model.engine": 4,
    "evovit diagnose model.engine --against model.onnx": 4,
    "evovit verify ckpt.pth model.engine": 4,
    "evovit package triton model.engine -o repository --model-version 2": 4,  # Triton takes plans of full TensorRT only
}
RTX = importlib.util.find_spec("tensorrt_rtx") is not None
CXX = shutil.which(os.environ.get("CXX") or "g++") is not None


def pages_with_blocks() -> list[Path]:
    return [page for page in PAGES if blocks(page)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder with the files that the pages speak of: images of the digits, and the models of stand_ins.py."""
    folder = tmp_path_factory.mktemp("docs")
    stand_ins.save_all(folder)
    shutil.copy(DIGITS / "labels.txt", folder / "labels.txt")
    shutil.copy(DIGITS / "test" / "7" / "0081.png", folder / "image.png")
    for name in ("val", "photos"):
        for digit in "0123456789":
            (folder / name / digit).mkdir(parents=True)
            for image in sorted((DIGITS / "test" / digit).iterdir())[:2]:
                shutil.copy(image, folder / name / digit)
    checkpoint = load_checkpoint(folder / "ckpt.pth")
    for name, precision in (("model", "fp32"), ("model_fp16", "fp16"), ("digits_fp16", "fp16")):
        options = ExportOptions(ModelOptions(precision, outputs=("logits", "kept")), prove=False)  # type: ignore[arg-type]
        export_onnx(checkpoint, folder / f"{name}.onnx", options)
    for name in ("digits", "small"):
        for suffix in (".onnx", ".json"):
            shutil.copy(folder / f"model{suffix}", folder / f"{name}{suffix}")
    if RTX:
        build_engine(folder / "model.onnx", folder / "model.engine", BuildOptions(target="tensorrt-rtx"), prove=False)
    if CXX:
        package = request.getfixturevalue("inductor_package")
        for suffix in (".pt2", ".pt2.json", ".pth"):
            shutil.copy(package.with_suffix(suffix), folder / f"model{suffix}")
    os.symlink(ROOT / "examples", folder / "examples")
    return folder


@pytest.fixture
def place(prepared: Path, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder to work in."""
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder, symlinks=True)
    if CXX and page.relative_to(ROOT).as_posix() in COMPILED:
        shutil.copy(folder / "model.pth", folder / "ckpt.pth")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EVOVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    measuring.install(monkeypatch.setattr)  # what is measured is not what is tested here
    return folder


def shorter(text: str) -> str:
    """A command or a script with what it is run with instead."""
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


class Shell:
    """Runs the commands of one page in order; a service goes on until another takes its port, or the page ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.variables = monkeypatch, dict[str, str]()
        self.services: dict[str, warm.Piped] = {}  # by the port that the page names
        self.ports: dict[str, str] = {}
        self.said = ""  # by the last command

    def run(self, line: str) -> str:
        """Run one line, and return what it prints on stdout."""
        if assigned := re.fullmatch(r"(\w+)=(\S+)", line):
            self.variables[assigned[1]] = assigned[2]
            return ""
        line = shorter(string.Template(line).safe_substitute(self.variables))
        line, _, target = line.partition(" > ")
        words = shlex.split(line)
        if words[:2] == ["evovit", "serve"]:
            self.serve(words)
            return ""
        if words[0] == "evovit":
            found = self.said = self.evovit(words, line)
        else:
            words = [re.sub(r"localhost:(\d+)", lambda at: f"localhost:{self.ports[at[1]]}", word) for word in words]
            result = subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=120)
            assert result.returncode == 0, line
            found = result.stdout
        if target:
            Path(target).write_text(found)
        return found

    def evovit(self, words: list[str], line: str) -> str:
        said = io.StringIO()
        self.monkeypatch.setattr(sys, "argv", words)
        with redirect_stdout(said), pytest.raises(SystemExit) as end:
            main()
        assert (end.value.code or 0) in {0, NO_GPU.get(line, 0)}, f"{line}\n{said.getvalue()}"
        return said.getvalue()

    def serve(self, words: list[str]) -> None:
        """Start a service on free ports in place of those that the page names."""
        port = words[words.index("--port") + 1] if "--port" in words else "8000"
        if "--port" in words:
            del words[words.index("--port") : words.index("--port") + 2]
        self.stop(port)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.ports[port] = str(probe.getsockname()[1])
        command = ["-m", "evovit_deploy", *words[1:], "--port", self.ports[port]]
        command += [] if "--no-grpc" in words else ["--grpc-port", "0"]
        service = self.services[port] = warm.Piped(command, Path.cwd())
        seen = ""
        for text in service.stderr:
            seen += text
            if text.startswith("ready: http"):
                return
        pytest.fail(f"{shlex.join(words)} did not serve:\n{seen}")

    def stop(self, port: str) -> None:
        """End a service as an orchestrator would."""
        if service := self.services.pop(port, None):
            service.terminate()
            service.communicate(timeout=60)
            assert service.returncode == 0

    def kill(self) -> None:
        """End what is left after a failure."""
        for service in self.services.values():
            service.kill()


def skipped(line: str) -> bool:
    needs_tensorrt = ".engine" in line or line.startswith("evovit build")
    no_tool = (needs_tensorrt and not RTX) or (".pt2" in line and not CXX)
    return no_tool or any(line.startswith(start) for start in NOT_RUN)


@pytest.mark.parametrize("page", pages_with_blocks(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_of_a_page_runs_as_printed(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = Shell(monkeypatch)
    try:
        for block in blocks(page):
            if any(block.text.startswith(first) for first in ELSEWHERE):
                continue
            RUN[block.language](block, shell)
        for port in list(shell.services):
            shell.stop(port)
    finally:
        shell.kill()


def run_commands(block: Block, shell: Shell) -> None:
    for line in block.commands:
        if not skipped(line):
            shell.run(line)


def run_python(block: Block, shell: Shell) -> None:
    """As a script in the folder: what it needs from outside is in the folder, and nothing else."""
    text = re.sub(r"localhost:(\d+)", lambda at: f"localhost:{shell.ports[at[1]]}", shorter(block.text))
    Path("example.py").write_text(text)
    where = f"{block.page}:{block.line}"
    if "__main__" in text:  # processes that it starts read the file
        result = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{where}\n{result.stdout}{result.stderr}"
    elif block.text.startswith(NEEDS_GPU) and not torch.cuda.is_available():
        with pytest.raises(EngineError):  # refused for the right reason
            runpy.run_path("example.py", run_name="__main__")
    else:
        runpy.run_path("example.py", run_name="__main__")


def read_toml(block: Block, shell: Shell) -> None:
    """A file to save under the name in its first comment, which a command further down reads."""
    name = re.match(r"# (\S+\.toml)\b", block.text)
    assert name is not None, f"{block.page}:{block.line}: its first line says its file name in a comment"
    Path(name[1]).parent.mkdir(parents=True, exist_ok=True)
    Path(name[1]).write_text(block.text)


def squashed(text: str) -> list[str]:
    """Lines without what differs between machines: figures, widths of columns, blanks, the worst image."""
    lines = (re.sub(r"[\u2500-\u257f]+", "|", re.sub(r"\d[\d.,e+-]*", "#", line)) for line in text.splitlines())
    words = (" ".join(line.split()) for line in lines if line.strip())
    return [re.sub(r"(\| ok \|).*", r"\1", line) for line in words]  # which image was the worst differs too


def check_output(block: Block, shell: Shell) -> None:
    """What the last command printed, figures aside."""
    shown, said = squashed(block.text), squashed(shell.said)
    assert [line for line in shown if line not in said] == [], shell.said


RUN: dict[str, Callable[[Block, Shell], None]] = {
    "sh": run_commands,
    "python": run_python,
    "toml": read_toml,
    "console": check_output,
    "text": lambda block, shell: None,  # a layout of files, or output that differs from run to run
}


def test_the_tables_of_this_file_name_nothing_that_is_gone() -> None:
    printed = [block for page in PAGES for block in blocks(page)]
    lines = [line for block in printed for line in block.commands]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), start
    for first, test in ELSEWHERE.items():
        assert any(block.text.startswith(first) for block in printed), first
        assert first.strip("# \n").split()[0] in (ROOT / test).read_text(), test
    assert set(NO_GPU) <= set(lines)
    values = [line.removeprefix("NAME=") for line in lines if line.startswith("NAME=")]
    lines += [line.replace("$NAME", value) for line in lines for value in values]
    for long in SHORTER:
        assert any(long in line for line in lines), long
    assert set(COMPILED) <= {block.page for block in printed}


def test_every_option_that_a_page_names_exists() -> None:
    from typer.main import get_command

    known: set[str] = {"--help"}
    todo = [get_command(app)]
    while todo:
        command = todo.pop()
        todo += getattr(command, "commands", {}).values()
        known |= {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    foreign = {
        "--data-binary", "--model-config-name", "--rm", "--upgrade", "--preload", "--no-deps", "--from-file", "--generate",
        "--whole",  # of the tests
    }  # fmt: skip
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):  # a changelog names what is gone, too
        if page.name != "design.md":
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text(encoding="utf-8")))
            assert named <= known | foreign, (page.name, named - known - foreign)
