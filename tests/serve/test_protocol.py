from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evovit_deploy.serve import json_body
from evovit_deploy.serve.protocol import InferRequest, encode_response, parse_request
from evovit_deploy.serve.rejections import Rejected
from evovit_deploy.serve.tensors import TensorInfo

BYTES = TensorInfo("images", "UINT8", (2, 2, 3))
FLOATS = TensorInfo("images", "FP32", (3, 2, 2))
OUTPUTS = (TensorInfo("logits", "FP32", (4,)), TensorInfo("kept_1", "INT64", (2,)))


def parse(document: Any, tail: bytes = b"", info: TensorInfo = BYTES, length: str | None = None) -> InferRequest:
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    if length is None and tail:
        length = str(len(head))
    return parse_request(head + tail, length, info, OUTPUTS, 8)


def request(info: TensorInfo = BYTES, n: int = 1, **changes: Any) -> dict[str, Any]:
    """A sound JSON request; ``changes`` replace keys of its tensor, and None takes them away."""
    tensor = {
        "name": "images",
        "datatype": info.datatype,
        "shape": [n, *info.shape],
        "data": list(range(12 * n)),
        **changes,
    }
    return {"inputs": [{key: value for key, value in tensor.items() if value is not None}]}


def binary(n: int = 1, size: Any = 12, **changes: Any) -> dict[str, Any]:
    return request(n=n, data=None, parameters={"binary_data_size": size}, **changes)


@pytest.mark.parametrize("info", [BYTES, FLOATS], ids=["uint8", "float32"])
def test_flat_nested_and_binary_are_the_same(info: TensorInfo) -> None:
    values = np.arange(24).reshape(2, *info.shape).astype({"UINT8": "u1", "FP32": "f4"}[info.datatype])
    for document, tail in (
        (request(info, 2, data=values.ravel().tolist()), b""),
        (request(info, 2, data=values.tolist()), b""),
        (request(info, 2, data=None, parameters={"binary_data_size": values.nbytes}), values.tobytes()),
    ):
        parsed = parse(document, tail, info)
        np.testing.assert_array_equal(parsed.images, values)
        assert parsed.images.dtype == values.dtype
        assert [output.name for output in parsed.outputs] == ["logits", "kept_1"]


def test_outputs_id_and_timeout() -> None:
    document = request() | {
        "id": "é",
        "parameters": {"timeout": 1500, "binary_data_output": True},
        "outputs": [{"name": "kept_1", "parameters": {"binary_data": False}}, {"name": "logits"}],
    }
    parsed = parse(document)
    assert (parsed.id, parsed.timeout) == ("é", 0.0015)
    assert [(output.name, output.binary) for output in parsed.outputs] == [("kept_1", False), ("logits", True)]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 60000, "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"inputs": NaN}', "not JSON"),
        ({}, "one input, images; this one has 0"),
        ({"inputs": [{}, {}]}, "this one has 2"),
        ({"inputs": {"name": "images"}}, "inputs must be a list of objects"),
        (request(name="image"), "no input called 'image'"),
        (request(name="x" * 1000), r"xxx\.\.\."),
        (request(datatype="FP32"), "is UINT8, not 'FP32'"),
        (request(shape=[1, 3, 2, 2]), r"shape \[n, 2, 2, 3\]"),
        (request(shape=[0, 2, 2, 3]), "n >= 1"),
        (request(shape=[-1, 2, 2, 3]), "n >= 1"),
        (request(shape=[9, 2, 2, 3]), "9 images in one request; the queue holds 8"),
        (request(shape=[1.0, 2, 2, 3]), "whole numbers"),
        (request(shape=[True, 2, 2, 3]), "whole numbers"),
        (request(shape=[]), "shape"),
        (request(shape=None), "shape"),
        (request(data=None), "neither data nor binary_data_size"),
        (request(data=[]), r"must be 12 whole numbers in a list, or nested as \[1, 2, 2, 3\]"),
        (request(data=list(range(11))), "must be 12 whole numbers"),
        (request(data=list(range(13))), "must be 12 whole numbers"),
        (request(data=[[1, 2], [3]]), "must be 12 whole numbers"),
        (request(data=[[1] * 6, [2] * 6]), "nested as"),
        (request(data=[256] * 12), "within 0 to 255"),
        (request(data=[-1] * 12), "within 0 to 255"),
        (request(data=[1.5] * 12), "whole numbers"),
        (request(data=[True] * 12), "whole numbers"),
        (request(data=["1"] * 12), "whole numbers"),
        (request(data=[10**30] * 12), "whole numbers"),
        (request(data="abc"), "whole numbers"),
        (request(data={"0": 1}), "whole numbers"),
        (request(parameters=[]), "must be an object"),
        (request(parameters={"shared_memory_region": "x"}), "shared memory"),
        (request(parameters={"binary_data_size": 12}), "both data and binary_data_size"),
        (request() | {"id": 1}, "id must be text"),
        (request() | {"outputs": [{"name": "x"}]}, "no output called 'x'; it has logits, kept_1"),
        (request() | {"outputs": [{}]}, "name of an output must be text"),
        (request() | {"outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]}, "true or false"),
        (request() | {"outputs": [{"name": "logits", "parameters": {"classification": 3}}]}, "classification"),
        (request() | {"parameters": {"timeout": -1}}, "microseconds"),
        (request() | {"parameters": {"sequence_id": 3}}, "sequence_id"),
    ],
)
def test_what_is_wrong_is_said(document: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason) as caught:
        parse(document)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("document", "tail", "length", "reason"),
    [
        (binary(), b"1" * 11, None, "must be 11, the bytes after the JSON"),
        (binary(size=11), b"1" * 11, None, "takes 12 bytes, not 11"),
        (binary(size=13), b"1" * 13, None, "takes 12 bytes, not 13"),
        (binary(size="12"), b"1" * 12, None, "must be 12"),
        (binary(size=-1), b"1" * 12, None, "must be 12"),
        (binary(), b"", None, "must be 0"),
        (request(), b"1" * 12, None, "12 bytes follow the JSON"),
        (binary(), b"1" * 12, "1000000", "the body has"),
        (binary(), b"1" * 12, "-3", "not a number of bytes"),
        (binary(), b"1" * 12, "٣", "not a number of bytes"),
        (binary(), b"1" * 12, "9" * 5000, "not a number of bytes"),
        (binary(), b"1" * 12, "5", "not JSON"),
    ],
)
def test_wrong_binary_sections(document: Any, tail: bytes, length: str | None, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        parse(document, tail, length=length)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_must_be_finite(value: float) -> None:
    values = np.zeros((1, *FLOATS.shape), np.float32)
    values[0, 1, 1, 1] = value
    document = request(FLOATS, data=None, parameters={"binary_data_size": values.nbytes})
    with pytest.raises(Rejected, match="NaN or infinity"):
        parse(document, values.tobytes(), FLOATS)
    with pytest.raises(Rejected, match="NaN or infinity"):
        parse(request(FLOATS, data=[1e300] * 12), info=FLOATS)
    large = np.full((1, *FLOATS.shape), 3e38, np.float32)  # finite, though their sum is not
    assert parse(document, large.tobytes(), FLOATS).images.max() > 1e38


def test_an_odd_header_length_gives_aligned_floats() -> None:
    values = np.arange(12, dtype=np.float32)
    document = json.dumps(request(FLOATS, data=None, parameters={"binary_data_size": 48})).encode()
    for padding in range(4):
        parsed = parse(document + b" " * padding, values.tobytes(), FLOATS)
        assert parsed.images.flags.aligned
        np.testing.assert_array_equal(parsed.images.ravel(), values)


def sent(text: bytes, n: int = 1, info: TensorInfo = BYTES) -> bytes:
    """A request whose data is written as ``text``."""
    head, tail = json.dumps(request(info, n, data="HERE")).encode().split(b'"HERE"')
    return head + text + tail


@pytest.mark.parametrize(
    "text",
    [
        b"[1,2,3,4,5,6,7,8,9,10,11,]",
        b"[1,2,3,4,5,6,7,8,9,10,11,12,]",
        b"[,1,2,3,4,5,6,7,8,9,10,11,12]",
        b"[1,2,3,4,5,6,7,8,9,10,11,012]",
        b"[1,2,3,4,5,6,7,8,9,10,11,+1]",
        b"[1,2,3,4,5,6,7,8,9,10,11,1 2]",
        b"[1,2,3,4,5,6,7,8,9,10,11,12][]",
        b"[1,2,3,4,5,6,7,8,9,10,11,12][1]",
        b"[1,2,3,4,5,6,7,8,9,10,11]12",
        b"[[[[1,2,3],[4,5,6]],[[7,8,9],10[,11,12]]]]",
        b"[[[[1,2,3],[4,5,6]],[[7,8,9],[10,11,]12]]]",
        b"[[[[1,2,3],[4,5,6]],[[7,8,9],[10,11,12]]],[]]",
        b"[[[1,2,3],[4,5,6]],[[7,8,9],[10,11,12]]]",
        b'[1,2,3,4,5,6,7,8,9,10,11,"12"]',
        b"[1,2,3,4,5,6,7,8,9,10,11,null]",
        b"[1,2,3,4,5,6,7,8,9,10,11,{}]",
    ],
)
def test_lists_that_are_nearly_right(text: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        parse(sent(text))
    assert caught.value.status == 400


def test_lists_in_the_widest_dress() -> None:
    spaced = b" [ [ [ [ 1 , 2 , 3 ] , [4\t,5,6]\r\n ],[[7,8,9],[10,11,12]] ] ] "
    for text in (spaced, b"[" + b",".join(b"%d" % n + b" " * 3000 for n in range(1, 13)) + b"]"):
        assert parse(sent(text)).images.ravel().tolist() == list(range(1, 13))
    marked = sent(b"[1]").replace(b"images", rb"\"data\": [1]", 1)  # within a string it is no key
    with pytest.raises(Rejected, match="no input called"):
        parse(marked)


@settings(max_examples=100)
@given(
    data=st.data(),
    info=st.sampled_from((BYTES, FLOATS)),
    n=st.integers(1, 3),
    nested=st.booleans(),
    indent=st.sampled_from((None, 1)),
    piece=st.integers(1, 40),
)
def test_numbers_in_pieces_are_those_of_a_parser(
    data: Any, info: TensorInfo, n: int, nested: bool, indent: int | None, piece: int
) -> None:
    one = st.integers(0, 255) if info is BYTES else st.floats(width=32, allow_nan=False, allow_infinity=False)
    values = np.array(data.draw(st.lists(one, min_size=12 * n, max_size=12 * n))).reshape(n, *info.shape)
    text = json.dumps((values if nested else values.ravel()).tolist(), indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_body, "PIECE", piece)
        found = parse(sent(text, n, info), info=info).images
        np.testing.assert_array_equal(found, values.astype(found.dtype))
        cut = data.draw(st.integers(1, len(text) - 1))
        for damaged in (text[:cut] + text[cut + 1 :], text[:cut] + b"," + text[cut:], text[:cut] + b"]" + text[cut:]):
            try:
                expected = np.array(json.loads(damaged), found.dtype)
            except (ValueError, OverflowError):
                expected = None
            try:
                read = parse(sent(damaged, n, info), info=info).images
            except Rejected:
                continue
            assert expected is not None
            assert expected.size == read.size
            np.testing.assert_array_equal(read.ravel(), expected.ravel())


WIDE = TensorInfo("images", "FP32", (3, 64, 64))


@pytest.mark.parametrize(
    "text",
    [
        b'["' + b"x" * 20_000 + b'",' + b'"",' * 12_286 + b'""]',
        b"[" + b"[]," * 1_000_000 + b"[]]",
        b"[" + b"{}," * 1_000_000 + b"{}]",
        b"[" + b"1," * 1_000_000 + b"1]",
        b"[" + b"0.5," * 1_000_000 + b"1]",
        b"[" + b"[1]," * 1_000_000 + b"[1]]",
        b"[" * 1_000_000 + b"]" * 1_000_000,
        b"[" + b"1" * 1_000_000 + b"]",
        b"[" + b" " * 1_000_000 + b"1" + b",1" * 12_287 + b"]",
        b'"' + b"x" * 1_000_000 + b'"',
    ],
    ids=["strings", "lists", "objects", "ints", "floats", "nested", "deep", "digits", "spaces", "text"],
)
def test_a_refused_list_takes_no_more_memory_than_its_text(text: bytes) -> None:
    body = sent(text, info=WIDE)
    parse(request(WIDE, data=[0] * 12_288), info=WIDE)  # what is made once is made now
    tracemalloc.start()
    try:
        with pytest.raises(Rejected) as caught:
            parse(body, info=WIDE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.status in (400, 413)
    assert peak < 3 * json_body.MAX_DOCUMENT + 12_288 * 4 + (1 << 20)


def test_the_rest_of_a_document_is_small() -> None:
    for document in (request() | {"id": "x" * 70_000}, b'{"inputs":' + b" " * 70_000 + b"[]}"):
        with pytest.raises(Rejected, match="65536 bytes beside the numbers") as caught:
            parse(document)
        assert caught.value.status == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(("name", "datatype", "shape", "data", "parameters"))


@settings(max_examples=150)
@given(
    changes=st.dictionaries(KEYS, JSON, max_size=2),
    extra=st.dictionaries(st.sampled_from(("id", "outputs", "parameters")), JSON),
)
def test_any_json_is_read_or_rejected(changes: dict[str, Any], extra: dict[str, Any]) -> None:
    for info in (BYTES, FLOATS):
        document = request(info)
        document["inputs"][0] |= changes
        try:
            parsed = parse(document | extra, info=info)
        except Rejected as error:
            status = error.status
        else:
            status = 400
            assert parsed.images.shape == (1, *info.shape)
        assert status == 400


@settings(max_examples=150)
@given(body=st.binary(max_size=60), length=st.none() | st.text(max_size=4) | st.integers(-5, 70).map(str))
@example(body=b"{}", length="2")
def test_any_bytes_are_rejected(body: bytes, length: str | None) -> None:
    with pytest.raises(Rejected):
        parse_request(body, length, BYTES, OUTPUTS, 8)


@settings(max_examples=60)
@given(cut=st.integers(0, 300), flip=st.integers(0, 300), value=st.integers(0, 255))
def test_a_damaged_binary_request_is_rejected_or_whole(cut: int, flip: int, value: int) -> None:
    head = json.dumps(binary()).encode()
    body = bytearray(head + bytes(range(12)))
    body[flip % len(body)] = value
    body = body[: len(body) - cut % 3 * (cut % 7)]
    try:
        parsed = parse_request(bytes(body), str(len(head)), BYTES, OUTPUTS, 8)
    except Rejected:
        return
    assert parsed.images.shape == (1, 2, 2, 3)


@settings(max_examples=50)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4), st.booleans())
def test_answers_carry_every_bit(values: list[float], as_bytes: bool) -> None:
    logits = np.array([values], np.float32)
    kept = np.array([[1, 2**62]], np.int64)
    document = request() | {"id": "7", "parameters": {"binary_data_output": as_bytes}}
    body, head = encode_response("m", "1", parse(document), {"logits": logits, "kept_1": kept})
    answer = json.loads(body[:head])
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("m", "1", "7")
    a, b = answer["outputs"]
    assert (a["datatype"], a["shape"], b["datatype"], b["shape"]) == ("FP32", [1, 4], "INT64", [1, 2])
    if as_bytes:
        assert head is not None
        assert body[head:] == logits.tobytes() + kept.tobytes()
        assert [t["parameters"]["binary_data_size"] for t in (a, b)] == [16, 16]
    else:
        assert head is None
        assert np.array(a["data"], np.float32).tobytes() == logits.tobytes()
        assert b["data"] == kept.ravel().tolist()


def test_what_json_cannot_carry() -> None:
    outputs = {"logits": np.full((1, 4), np.nan, np.float32), "kept_1": np.zeros((1, 2), np.int64)}
    with pytest.raises(Rejected, match="not finite") as caught:
        encode_response("m", "1", parse(request()), outputs)
    assert caught.value.status == 422
