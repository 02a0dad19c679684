"""A package that is missing from an installation is named, and never called a bug."""

from __future__ import annotations

import sys

import pytest

from evovit_deploy import cli


@pytest.mark.parametrize("module", ["torch", "torch.nn", "timm", "onnx", "onnxruntime"])
def test_a_missing_package_exits_4(module, monkeypatch, capsys):
    def fails(**given):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(sys, "argv", ["evovit", "doctor"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().err
    assert end.value.code == 4
    assert "pip install " + module.partition(".")[0] in said
    assert "bug" not in said


def test_a_module_of_our_own_that_is_missing_is_a_bug(monkeypatch, capsys):
    def fails(**given):
        raise ModuleNotFoundError("No module named 'evovit_deploy.nothing'", name="evovit_deploy.nothing")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert "This is a bug" in capsys.readouterr().err
