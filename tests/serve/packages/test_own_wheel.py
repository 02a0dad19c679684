"""The wheel that goes into a container: what a build would make, from a checkout and from an installation alike."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from wheel.wheelfile import WheelFile

from evovit_deploy.errors import EngineError
from evovit_deploy.packages.own_wheel import DATA, make_wheel
from evovit_deploy.storage.shipped import PACKAGE_FOLDER, data_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]
AGAIN = """
import sys
from pathlib import Path
from evovit_deploy.errors import EngineError
from evovit_deploy.storage.shipped import PACKAGE_FOLDER, data_names
from evovit_deploy.packages.own_wheel import make_wheel
print(PACKAGE_FOLDER, *data_names("export"))
make_wheel(Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_wheel(tmp_path_factory.mktemp("wheel"))


def test_it_holds_what_a_build_puts_into_it(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert project["packages"] == ["evovit_deploy"]
    assert project["force-include"] == {name: f"evovit_deploy/_data/{name}" for name in DATA}
    with WheelFile(wheel) as opened:  # it compares every file with RECORD as it reads
        names = opened.namelist()
        for name in names:
            opened.read(name)
        assert f"Version: {metadata.version('evovit-deploy')}".encode() in opened.read(
            f"{opened.dist_info_path}/METADATA"
        )
        assert b"evovit = evovit_deploy.cli:main" in opened.read(f"{opened.dist_info_path}/entry_points.txt")
    modules = {f"evovit_deploy/{path.relative_to(PACKAGE_FOLDER).as_posix()}" for path in PACKAGE_FOLDER.rglob("*.py")}
    assert modules <= set(names)
    assert len(names) == len(set(names))
    assert {f"evovit_deploy/_data/export/{name}.toml" for name in data_names("export")} <= set(names)
    assert {"evovit_deploy/py.typed", "evovit_deploy/explain/gallery.html"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "direct_url" in name or str(ROOT) in name]


def test_an_installation_of_it_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    with WheelFile(wheel) as opened:
        opened.extractall(tmp_path / "site")
    words = [sys.executable, "-c", AGAIN, str(tmp_path / "again")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(tmp_path / "site" / "evovit_deploy"), *data_names("export")]
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


def test_without_the_library_that_packs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wheel.wheelfile", None)
    with pytest.raises(EngineError, match=r"pip install wheel; or give --wheel FILE"):
        make_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []
