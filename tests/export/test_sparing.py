"""What the exporter is spared: rules that cannot match, with the same graph, and looking for garbage that is not there."""

from __future__ import annotations

import gc

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnxscript import rewriter
from onnxscript.optimizer import optimize

from evovit_deploy import ExportOptions, export_onnx
from evovit_deploy.export.sparing import applicable_rules_only, few_collections
from evovit_deploy.models.options import ModelOptions

# A match for rules of several kinds: of one operator after another, of a constant, and of two operators side by side.
TEXT = """
<ir_version: 9, opset_import: ["" : 20]>
graph (float[2, 4, 6] images) => (float[2, 6, 4] once, float[2, 4, 6] twice, float[2, 4, 3] first, float[2, 4, 3] second)
<float one = {1.0}, int64[1] zero = {0}, int64[1] three = {3}, int64[1] six = {6}, int64[1] last = {2}>
{
    scaled = Mul(images, one)
    turned = Transpose <perm = [0, 2, 1]> (scaled)
    back = Transpose <perm = [0, 2, 1]> (turned)
    once = Transpose <perm = [0, 2, 1]> (back)
    wide = Cast <to = 11> (images)
    narrow = Cast <to = 1> (wide)
    positive = Relu(narrow)
    twice = Relu(positive)
    second = Slice(images, three, six, last)
    first = Slice(images, zero, three, last)
}
"""


def test_the_graph_is_the_one_that_all_rules_make() -> None:
    graph = onnx.parser.parse_model(TEXT)
    expected = optimize(graph)
    with applicable_rules_only():
        found = optimize(graph)
    assert found.SerializeToString() == expected.SerializeToString()
    kinds = sorted(node.op_type for node in found.graph.node)
    assert kinds.count("Transpose") == kinds.count("Relu") == 1
    assert "Split" in kinds


def test_a_rule_is_left_out_only_where_it_would_find_nothing() -> None:
    tried = {}
    for narrow in (False, True):
        model = ir.from_proto(onnx.parser.parse_model(TEXT))
        rules = list(rewriter._DEFAULT_REWRITE_RULES)
        if narrow:
            with applicable_rules_only():
                rules = list(rewriter._DEFAULT_REWRITE_RULES)
        tried[narrow] = [
            [rule.try_rewrite(model, model.graph, node) is not None for rule in rules] for node in model.graph
        ]
    assert tried[True] == tried[False]
    assert sum(map(sum, tried[True])) >= 5


def test_the_rules_are_back_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rewriter._DEFAULT_REWRITE_RULES
    with pytest.raises(KeyError), applicable_rules_only():
        raise KeyError(rewriter._DEFAULT_REWRITE_RULES)
    assert rewriter._DEFAULT_REWRITE_RULES is before
    monkeypatch.delattr(rewriter, "_DEFAULT_REWRITE_RULES")
    with applicable_rules_only():  # an onnxscript that keeps them elsewhere
        assert not hasattr(rewriter, "_DEFAULT_REWRITE_RULES")


def test_an_export_tries_them_so(tiny, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, thresholds = [], set()
    rule = type(rewriter._DEFAULT_REWRITE_RULES[0])
    real = rule.try_rewrite

    def try_rewrite(self, model, graph, node, **options):
        tried.append((self._target_pattern.output_nodes[0].op_identifier(), node.op_identifier()))
        thresholds.add(gc.get_threshold()[0])
        return real(self, model, graph, node, **options)

    monkeypatch.setattr(rule, "try_rewrite", try_rewrite)
    monkeypatch.setattr("evovit_deploy.export.onnx.to_onnx", unshared())
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        export_onnx(tiny, tmp_path / "model.onnx", ExportOptions(ModelOptions(), prove=False))
        assert gc.get_threshold() == (700, 10, 10)
    finally:
        gc.set_threshold(*before)
    assert thresholds == {50_000}
    assert any(pattern == node for pattern, node in tried)
    assert all(pattern in (None, node) for pattern, node in tried)


@pytest.mark.parametrize("set_to", [(0, 10, 10), (100_000, 5, 5)])
def test_what_the_caller_wants_less_often_stays(set_to: tuple[int, int, int]) -> None:
    before = gc.get_threshold()
    gc.set_threshold(*set_to)
    try:
        with few_collections():
            assert gc.get_threshold() == set_to
        assert gc.get_threshold() == set_to
    finally:
        gc.set_threshold(*before)


def unshared():
    """The exporter itself, in place of the one that shares with other tests what it made."""
    from evovit_deploy.export import graph

    return getattr(graph.to_onnx, "to_onnx", graph.to_onnx)
