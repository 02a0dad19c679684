"""The page and its plots."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from evovit_deploy.bench.page import NARROW, WIDE, page
from evovit_deploy.bench.plots import latency_plot, png, speedup_plot
from evovit_deploy.bench.save import check_output, save_page
from evovit_deploy.errors import EngineError, InputError, OutputError
from tests.bench.made import point, report, subject


def test_the_page_asks_for_nothing_from_outside() -> None:
    text = page([report(command="evovit bench small.onnx")])
    for address in re.findall(r"""(?:src|srcset|href)=["']?([^"'>\s]+)""", text):
        assert address.startswith("data:"), address
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "<script" not in text


def test_the_page_holds_every_figure_and_answer() -> None:
    text = page([report()], budget_ms=61)
    for said in (
        "1.500 [1.450, 1.550]",
        "225.00",
        "from batch 8 on",
        "Test CPU",
        "not evaluated",
        "evo in 61 ms: batch 8",
    ):
        assert said in text, said
    assert text.count("<figure>") == 2
    assert text.count('<source media="(max-width: 40rem)"') == 2


def test_a_row_of_a_narrow_window_says_what_each_value_is() -> None:
    """There a table has no header: each cell says its own name."""
    text = page([report()])
    for found in re.findall(r"<table>.*?</table>", text, re.DOTALL):
        header = re.findall(r"<th [^>]*>(.*?)</th>", found)
        for row in re.findall(r"<tr[^>]*>((?:<td.*?</td>)+)</tr>", found):
            assert re.findall(r'data-name="(.*?)"', row) == header
    narrow = text[text.index("@media (max-width: 40rem)") :]
    assert "thead { display: none; }" in narrow
    assert "content: attr(data-name)" in narrow


def test_names_are_escaped() -> None:
    odd = '<b>&"x" $\\broken$'
    text = page([report(point(odd, 1, 10), subjects=(subject(odd),), baseline=None, command="<i>")])
    assert "<b>" not in text
    assert "<i>" not in text
    assert "&lt;b&gt;" in text
    assert text.count("<figure>") == 1  # without a baseline there is no plot of speedups


def test_plots_hold_the_points() -> None:
    axes = latency_plot(report(), 6, 4).axes[0]
    lines = {tuple(line.get_xdata()) for line in axes.get_lines()}
    assert (1000 / 10.0, 8000 / 40.0, 32000 / 150.0) in lines
    assert {text.get_text() for text in axes.texts} == {"1", "8", "32"}
    axes = speedup_plot(report(), 6, 4).axes[0]
    assert any(list(line.get_ydata()) == [1.02, 1.4, 1.5] for line in axes.get_lines())
    assert any(text.get_text() == "MAC ratio 1.50" for text in axes.texts)
    assert png(latency_plot(report(), 3, 3)).startswith(b"\x89PNG")


CROWDED = [(374, 2.46), (443, 2.08), (2936, 2.52), (3490, 2.11), (9936, 6.4), (8237, 7.73), (11335, 22.5), (9090, 28.2)]


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("scale", [1.0, 1.02])
def test_labels_cover_neither_each_other_nor_a_mark(size: tuple[float, float], scale: float) -> None:
    """Two models that are close to each other at every batch size, in a wide and in a narrow window."""
    points = [
        dataclasses.replace(
            point("evo" if i % 2 == 0 else "deit", 8 ** (i // 2), ms), images_per_second=rate * scale ** (i % 2)
        )
        for i, (rate, ms) in enumerate(CROWDED)
    ]
    figure = latency_plot(report(*points), *size)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent().extents for text in axes.texts]
    assert len(boxes) == len(points)
    middles = axes.transData.transform([(p.images_per_second, p.p50_ms) for p in points])
    marks = [(x - 3, y - 3, x + 3, y + 3) for x, y in middles]
    frame = axes.get_window_extent().extents
    for i, (left, bottom, right, top) in enumerate(boxes):
        assert min(left - frame[0], bottom - frame[1], frame[2] - right, frame[3] - top) >= 0
        for a, b, c, d in [*boxes[:i], *marks]:
            assert not (left < c and a < right and bottom < d and b < top), axes.texts[i].get_text()


def test_models_of_the_same_work_have_one_label() -> None:
    points = [point(name, 8, 40.0, (1.4, 1.35, 1.45)) for name in ("a", "b")] + [point("deit", 8, 56.0)]
    subjects = (subject("a", macs=3.0e9), subject("b", macs=3.0e9), subject("deit", macs=4.5e9))
    axes = speedup_plot(report(*points, subjects=subjects), 6, 4).axes[0]
    assert [text.get_text() for text in axes.texts] == ["MAC ratio 1.50"]


def test_files(tmp_path: Path) -> None:
    written = save_page(tmp_path / "r.html", [report(), report(point("evo", 1, 10), baseline=None)])
    assert [path.name for path in written] == ["r.html", "r-1-latency.png", "r-1-speedup.png", "r-2-latency.png"]
    assert all(path.stat().st_size > 1000 for path in written)
    for wrong in (tmp_path / "r.png", tmp_path / "new.d" / "r.htm"):
        with pytest.raises(InputError, match=r"names neither a folder nor a file that ends in \.html"):
            check_output(wrong)


def test_a_folder_gets_the_page_under_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "with.dot").mkdir()
    for folder in (tmp_path / "new", tmp_path / "with.dot"):
        check_output(folder)
        written = save_page(folder, [report()])
        names = ["index.html", "index-1-latency.png", "index-1-speedup.png"]
        assert written == [folder / name for name in names]
        assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file"):
        save_page(tmp_path / "file", [report()])
    assert (tmp_path / "file").read_text() == "mine"


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EngineError, match=r"needs matplotlib, .* pip install -e '\.\[report\]' in a checkout"):
        page([report()])
