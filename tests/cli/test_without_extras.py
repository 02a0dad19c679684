"""Every optional package hidden in turn: a command works without it, or exits 4 and says what to install."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evovit_deploy import cli
from evovit_deploy.bench.telemetry import Telemetry
from evovit_deploy.errors import EngineError
from evovit_deploy.machine.extras import extras, install_advice, modules_of, require, requirements_of

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
IMAGE = DIGITS / "test" / "7" / "0081.png"
RECORD = next(iter(sorted((ROOT / "bench" / "results").glob("*.jsonl"))))
SERVE = ("starlette", "uvicorn", "grpc", "tritonclient", "prometheus_client")
EVERY = (*SERVE, "httptools", "uvloop", "simplejpeg", "ray", "matplotlib", "pynvml", "tensorrt", "tensorrt_rtx")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command with some packages hidden: (exit code, stdout, stderr)."""

    def command(hidden: tuple[str, ...], *words: object) -> tuple[int, str, str]:
        hide(monkeypatch, *hidden)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["evovit", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return command


def hide(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let importing these fail as if they were not installed; what is built on them has to be imported again."""
    for name in list(sys.modules):
        if name.split(".")[0] in packages or ("grpc" in packages and name.startswith("tritonclient.grpc")):
            monkeypatch.delitem(sys.modules, name)
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from evovit_deploy import ExportOptions, export_onnx, load_checkpoint

    path = tmp_path_factory.mktemp("model") / "digits.onnx"
    export_onnx(load_checkpoint(DIGITS / "evo_deit_digits.pth"), path, ExportOptions(prove=False))
    return path


@pytest.mark.parametrize(
    ("hidden", "extra", "words"),
    [
        *((name, "serve", ("serve", "MODEL")) for name in SERVE),
        *((name, "serve", ("bench", "serve", "MODEL")) for name in (*SERVE, "httptools")),
        *((name, "serve", ("package", "triton", "MODEL", "-o", "out")) for name in ("grpc", "tritonclient")),
        *((name, "ray", ("serve", "MODEL", "--ray")) for name in ("ray", "starlette", "prometheus_client")),
        *((name, "ray", ("predict", "MODEL", "IMAGE", "--ray")) for name in ("ray", "starlette")),
        ("ray", "ray", ("bench", "serve", "--faults", "--ray")),
        ("matplotlib", "report", ("bench", "report", "RECORD", "-o", "page.html")),
        ("tensorrt,tensorrt_rtx", "rtx", ("build", "MODEL", "-o", "x.engine")),
        ("tensorrt,tensorrt_rtx", "rtx", ("export", "CKPT", "--format", "engine", "-o", "x.engine")),
        ("tensorrt_rtx", "rtx", ("build", "MODEL", "-o", "x.engine", "--target", "tensorrt-rtx")),
        ("tensorrt", "tensorrt", ("build", "MODEL", "-o", "x.engine", "--target", "tensorrt")),
    ],
)  # fmt: skip
def test_what_is_missing_and_how_to_install_it(
    run: Run, model: Path, tmp_path: Path, hidden: str, extra: str, words: tuple[str, ...]
) -> None:
    names = {"MODEL": model, "IMAGE": IMAGE, "RECORD": RECORD, "CKPT": DIGITS / "evo_deit_digits.pth"}
    code, out, err = run(tuple(hidden.split(",")), *(names.get(word, word) for word in words))
    assert (code, out) == (4, ""), err
    assert "installed" in err
    assert "bug" not in err
    assert install_advice(extra).removeprefix("Install ").removesuffix(".") in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("inspect", "MODEL"), 0),
        (("predict", "MODEL", "IMAGE", "--provider", "cpu"), 0),
        (("package", "ray", "MODEL", "-o", "x.yaml"), 0),
        (("package", "kubernetes", "MODEL", "--image", "x/y:1", "-o", "x.yaml"), 0),
        (("bench", "report", "RECORD"), 0),
        (("bench", "compare", "RECORD", "RECORD"), 0),
        (("serve", "--help"), 0),
    ],
)
def test_works_without_any(run: Run, model: Path, words: tuple[str, ...], code: int) -> None:
    names = {"MODEL": model, "IMAGE": IMAGE, "RECORD": RECORD}
    found, out, err = run(EVERY, *(names.get(word, word) for word in words))
    assert found == code, err
    assert out


@pytest.mark.parametrize("hidden", ["uvloop", "simplejpeg"])
def test_the_service_does_without_what_only_makes_it_better(run: Run, hidden: str) -> None:
    code, _, err = run((hidden,), "serve", "missing.onnx", "--port", "0", "--grpc-port", "0")
    assert code in (1, 2)
    assert "missing.onnx" in err  # it got as far as the model


def test_no_telemetry_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "pynvml")
    assert Telemetry.open("cuda:0") is None


def test_a_package_that_is_there_and_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise OSError('libfoo.so.1: cannot open shared object file')")
    hide(monkeypatch, "matplotlib")
    monkeypatch.delitem(sys.modules, "matplotlib")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineError, match=r"plots: matplotlib is installed and cannot be imported \(OSError: libfoo"):
        require("report", "plots")


def test_the_metadata_is_the_list() -> None:
    """Extras of extras are written out, so that pip can be given what is named; no index knows this package."""
    assert set(extras()) >= {"serve", "ray", "report", "telemetry", "rtx", "tensorrt"}
    assert "dev" not in extras()
    assert set(modules_of("serve")) < set(modules_of("ray"))
    for extra in extras():
        assert not any("evovit-deploy" in line for line in requirements_of(extra))
        assert f"pip install -e '.[{extra}]' in a checkout, or pip install " in install_advice(extra)


def test_nothing_advises_an_index_that_does_not_have_it() -> None:
    sources = [*(ROOT / "evovit_deploy").rglob("*.py")]
    wrong = [path.name for path in sources if "evovit-deploy[" in path.read_text() and path.parent.name != "packages"]
    assert wrong == []
