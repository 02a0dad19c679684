"""What the exporter is spared leaves no trace: the graph is the same, and everything is as it was afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import gc

import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch
from onnxscript import rewriter
from onnxscript.optimizer import optimize

from evovit_deploy import ExportOptions, export_onnx, random_checkpoint
from evovit_deploy.export import sparing
from evovit_deploy.export.sparing import applicable_rules_only, few_collections, few_operations, library_read_once
from evovit_deploy.models.build import build_model
from evovit_deploy.models.options import ModelOptions
from evovit_deploy.recipes import Evolution

from .conftest import TINY

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


def test_an_export_tries_them_so(pair, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        export_onnx(pair, tmp_path / "model.onnx", ExportOptions(ModelOptions(), prove=False))
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


class Everything(torch.nn.Module):
    """Each operation that is left out, beside those that look like it and are not."""

    def forward(self, x):
        longs = x[:, 1:3].long()
        same = x.float().to(torch.float32).to(x.dtype)[:, :2], longs.long()[:, 1:]
        near = (
            x[:, 1],
            x[:, ::2],
            x[:, 0:2, 1:],
            x.half(),
            longs.float(),
            x.to(torch.float32, copy=True),
        )
        return (*same, *near, x[:, -2:])


def test_operations_that_change_nothing_are_left_out_and_no_others():
    example = torch.randn(2, 4, 3)
    # Where the size is known, torch.export leaves out the whole range itself.
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    full = torch.export.export(Everything(), (example,), dynamic_shapes=shapes)
    with few_operations():
        spared = torch.export.export(Everything(), (example,), dynamic_shapes=shapes)
    for found, expected in zip(spared.module()(example), full.module()(example), strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)

    def count(program, name):
        return sum(str(node.target) == name for node in program.graph.nodes)

    def lines(program):
        return sum("stack_trace" in node.meta for node in program.graph.nodes)

    assert count(full, "aten.to.dtype") - count(spared, "aten.to.dtype") == 4
    assert count(full, "aten.slice.Tensor") - count(spared, "aten.slice.Tensor") == 4
    assert lines(full) > 20 > 5 > lines(spared)  # those of assertions are made elsewhere
    with few_operations():
        parts = example[1:, 1:2], example[:, 3], example[:, -3:-1], example[:, torch.tensor([1, 0])]
    for found, expected in zip(
        parts, (example[1:, 1:2], example[:, 3], example[:, 1:3], example[:, [1, 0]]), strict=True
    ):
        assert torch.equal(found, expected)
    with pytest.raises(KeyError), few_operations():
        raise KeyError
    assert not torch.fx.config.do_not_emit_stack_traces


def test_the_library_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.onnx._internal.exporter import _registration

    def read():
        calls.append(1)
        return calls

    calls: list[int] = []
    monkeypatch.setattr(_registration.onnxscript_apis, "get_torchlib_ops", read)
    for _ in range(3):
        with library_read_once():
            assert _registration.onnxscript_apis.get_torchlib_ops() is calls
    assert calls == [1]
    assert _registration.onnxscript_apis.get_torchlib_ops is read
    monkeypatch.delattr(_registration, "onnxscript_apis")
    with library_read_once():  # a torch that keeps it elsewhere
        assert not hasattr(_registration, "onnxscript_apis")


def test_the_graph_of_an_export_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the numbers in the names of its values."""
    structure = dataclasses.replace(TINY.structure, depth=2, image_size=32)
    recipe = dataclasses.replace(TINY, structure=structure, evolution=Evolution((1, 0.5), (1, 0.5), stage_starts=(1,)))
    module = build_model(recipe, random_checkpoint(recipe).state, ModelOptions(outputs=("logits", "kept")))
    graphs = []
    for _ in range(2):
        model = unshared()(module, torch.zeros(2, 3, 32, 32), ("logits", "kept_1"), dynamic=True, opset=20)
        graphs.append(numbered(model.graph))
        monkeypatch.setattr(sparing, "spared", contextlib.nullcontext)
    assert graphs[0] == graphs[1]
    assert len(graphs[0]) > 80


def numbered(graph: onnx.GraphProto) -> list[object]:
    """Its nodes, with the values numbered as they come, and constants as they are."""
    values: dict[str, object] = {
        tensor.name: (tensor.dims, tensor.data_type, tensor.raw_data) for tensor in graph.initializer
    }
    return [
        (node.name, node.op_type, list(node.attribute), *(values.setdefault(name, len(values)) for name in names))
        for node in graph.node
        for names in ((*node.input, *node.output),)
    ]


def unshared():
    """The exporter itself, in place of the one that shares with other tests what it made."""
    from evovit_deploy.export import graph

    return getattr(graph.to_onnx, "to_onnx", graph.to_onnx)
