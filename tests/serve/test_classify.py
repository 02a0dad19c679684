from __future__ import annotations

import dataclasses
import io
import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from evovit_deploy.classes.scores import probabilities
from evovit_deploy.engines import Engine, FakeEngine
from evovit_deploy.images.decode import load_image
from evovit_deploy.images.folder import find_images
from evovit_deploy.images.transform import preprocess
from evovit_deploy.recipes import Transform

from ..images.bombs import BOMBS
from ..images.test_soundness import encoded, garbled, picture
from .conftest import DIGITS
from .engines import PATIENCE, NumberEngine
from .running import Running, always, running


def png(size: tuple[int, int] = (8, 8), kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **options)
    return stream.getvalue()


def header(width: int, height: int) -> bytes:
    """A PNG that says it is this large and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with running(always(NumberEngine()), max_pixels=10_000, max_request_mib=1) as result:
        yield result


@pytest.fixture(scope="module")
def roomy() -> Iterator[Running]:
    """With the default limits."""
    with running(always(NumberEngine())) as result:
        yield result


def test_labels_and_probabilities_are_those_of_the_engine(digits: Running) -> None:
    engine = digits.service.models.find("digits").engine
    assert isinstance(engine, Engine)
    for path in find_images([DIGITS / "test"])[::60]:
        spec = engine.spec
        batch = preprocess(load_image(path), spec.transform or Transform(), spec.image_size, spec.input)[None]
        row = probabilities(engine(batch))[0]
        status, _, body = digits.call("POST", "/v1/classify?top_k=3", path.read_bytes(), {"Content-Type": "image/png"})
        assert status == 200
        answer = json.loads(body)
        assert (answer["model"], answer["version"], len(answer["top"])) == ("digits", "1", 3)
        for entry, number in zip(answer["top"], np.argsort(-row, kind="stable")):
            assert entry == {"class": number, "label": str(number), "probability": row[number]}


def test_several_models_must_be_told_apart() -> None:
    with running(always(NumberEngine()), "a", "b") as both:
        status, _, body = both.call("POST", "/v1/classify", png())
        assert (status, json.loads(body)["error"]) == (400, "say which model: a, b.")
        assert both.call("POST", "/v1/classify?model=b&top_k=1", png())[0] == 200


@pytest.mark.parametrize("name", list(BOMBS))
def test_bombs_are_refused(roomy: Running, name: str) -> None:
    data, reason = BOMBS[name]
    status, _, body = roomy.call("POST", "/v1/classify", data)
    assert status == 400
    assert "refused: it has more than" in json.loads(body)["error"]
    assert reason in json.loads(body)["error"]
    assert roomy.call("POST", "/v1/classify", png())[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "neither a JPEG nor a PNG"),
        (b"hello", 400, "neither a JPEG nor a PNG"),
        (png(kind="GIF"), 400, "neither a JPEG nor a PNG"),
        (png(kind="BMP"), 400, "neither a JPEG nor a PNG"),
        (png(kind="TIFF"), 400, "neither a JPEG nor a PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", 400, "neither a JPEG nor a PNG"),
        (png((64, 64))[:-30], 400, "damaged"),
        (png((64, 64), "JPEG")[:300], 400, ""),
        (png((101, 100)), 413, "101 x 100 pixels; 10000 are the limit"),
        (header(60_000, 60_000), 413, "pixels"),
        (header(2**31 - 1, 2**31 - 1), 413, "pixels"),
        (header(0, 5), 400, ""),
        (header(50, 50), 400, "damaged"),
        (garbled(encoded(picture().resize((96, 96))), b"\xff\xda", 0), 400, "damaged"),
        (garbled(encoded(picture().resize((96, 96)), "PNG"), b"IDAT", 0, 1), 400, "damaged"),
        (bytes(2 << 20), 413, "larger than 1048576 bytes"),
    ],
    ids=range(16),
)
def test_hostile_images(service: Running, body: bytes, status: int, reason: str) -> None:
    found, _, answer = service.call("POST", "/v1/classify", body)
    assert found == status
    assert reason in json.loads(answer)["error"]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "I;16"])
def test_every_kind_of_png(service: Running, mode: str) -> None:
    assert service.call("POST", "/v1/classify", png(mode=mode))[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        png(kind="JPEG", mode="L"),
        png(kind="JPEG", mode="CMYK"),
        png(kind="JPEG", progressive=True),
        png(kind="JPEG", exif=b"Exif\0\0broken"),
        png(kind="JPEG", icc_profile=b"no profile"),
        png(kind="PNG", save_all=True, append_images=[Image.new("RGB", (8, 8))]),  # an animation: its first frame
        png(kind="MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]),  # as some phones write JPEG
    ],
    ids=["grey", "CMYK", "progressive", "damaged EXIF", "damaged profile", "animation", "MPO"],
)
def test_every_kind_of_jpeg_and_more(service: Running, body: bytes) -> None:
    assert service.call("POST", "/v1/classify", body)[0] == 200


def test_an_image_is_turned_upright(digits: Running) -> None:
    lying = io.BytesIO()
    with Image.open(DIGITS / "test" / "7" / "0081.png") as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # what is stored has to be turned by 90 degrees, clockwise
        image.convert("RGB").rotate(90, expand=True).save(lying, "PNG", exif=exif)
    upright, turned = (
        json.loads(digits.call("POST", "/v1/classify", body)[2])
        for body in ((DIGITS / "test" / "7" / "0081.png").read_bytes(), lying.getvalue())
    )
    assert turned == upright


def test_text_that_unpacks_to_more_than_the_image(service: Running) -> None:
    text = PngImagePlugin.PngInfo()
    for number in range(12):
        text.add_text(f"key{number}", " " * (16 << 20), zip=True)  # 16 kB each in the file, 192 MiB unpacked
    body = png(pnginfo=text)
    assert len(body) < 1 << 20
    status, _, answer = service.call("POST", "/v1/classify", body)
    assert (status, json.loads(answer)["error"]) == (400, "the image is damaged.")


def test_a_line_of_pixels(service: Running) -> None:
    """Resized whole, it would be a thousand times as large as what is then cropped of it."""
    assert service.call("POST", "/v1/classify", png((10_000, 1)))[0] == 200


@settings(max_examples=80)
@given(
    kind=st.sampled_from(("PNG", "JPEG")),
    at=st.integers(0, 400),
    value=st.binary(min_size=1, max_size=4),
    cut=st.integers(0, 50),
)
def test_damaged_images_are_read_or_refused(service: Running, kind: str, at: int, value: bytes, cut: int) -> None:
    body = bytearray(png((30, 20), kind))
    at %= len(body)
    body[at : at + len(value)] = value
    status, _, answer = service.call("POST", "/v1/classify", bytes(body[: len(body) - cut]))
    assert status in (200, 400, 413)
    assert json.loads(answer).keys() in ({"error"}, {"model", "version", "top"})


class Seen(FakeEngine):
    """Notes the value of the pixels it gets, and can be held."""

    def __init__(self, transform: Transform | None) -> None:
        super().__init__(3, 8)
        self.spec = dataclasses.replace(self.spec, transform=transform)
        self.values: list[float] = []
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.gate.set()

    def run(self, images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        if images.any() or self.values:  # warming up sends zeros
            self.values.append(round(float(images.max()), 4))
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        return super().run(images)


OLD = Transform(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
NEW = Transform(mean=(0.0, 0.0, 0.0), std=(0.25, 0.25, 0.25))


@pytest.mark.parametrize(("old", "new", "values"), [(OLD, NEW, [4.0]), (OLD, OLD, [1.0]), (None, Transform(), [2.64])])
def test_an_image_that_waits_over_a_reload_is_prepared_for_the_new_model(
    old: Transform | None, new: Transform | None, values: list[float]
) -> None:
    engines = [Seen(old), Seen(new)]
    first, second = engines
    white = io.BytesIO()
    Image.new("RGB", (8, 8), (255, 255, 255)).save(white, "PNG")
    with (
        running(lambda source, settings: engines.pop(0), max_batch=1, control=True) as service,
        ThreadPoolExecutor(3) as pool,
    ):
        while first.entered.acquire(blocking=False):
            pass
        first.gate.clear()
        under_way = pool.submit(service.call, "POST", "/v1/classify", white.getvalue())
        assert first.entered.acquire(timeout=PATIENCE)
        waiting = pool.submit(service.call, "POST", "/v1/classify", white.getvalue())
        model = service.service.models.find("m")
        while not model.batcher.queued:
            time.sleep(0.001)
        reload = pool.submit(service.call, "POST", "/v2/repository/models/m/load")
        while model.engine is not second:
            time.sleep(0.001)
        first.gate.set()
        assert [future.result(PATIENCE)[0] for future in (under_way, waiting, reload)] == [200, 200, 200]
        assert second.values[-1:] == values
        assert len(first.values) == 1
        statistics = service.json("GET", "/v2/models/m/stats")[1]["model_stats"][0]["inference_stats"]
        assert (statistics["success"]["count"], statistics["fail"]["count"]) == (2, 0)
