from __future__ import annotations

import io
import random
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from poise.commands.page.uploads import FORMATS, Limits, read_upload
from poise.core.misuse import Misuse

GREY, RGB = (1, 8, 8), (3, 8, 8)


def encoded(pixels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def test_an_image_of_the_datas_size_is_taken_bit_by_bit():
    found = read_upload(encoded(RAMP), GREY, Limits())
    assert torch.equal(found[0, 0], torch.from_numpy(RAMP) / 255)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", [GREY, RGB, (3, 6, 9)])
def test_any_format_and_size_comes_in_the_datas_shape(kind, shape):
    found = read_upload(encoded(COLOUR, kind), shape, Limits())
    assert found.shape == (1, *shape)
    assert 0 <= found.min() < found.max() <= 1


def test_the_centre_is_taken_of_a_picture_of_other_proportions():
    wide = np.zeros((8, 24), dtype=np.uint8)
    wide[:, 8:16] = RAMP
    assert torch.equal(read_upload(encoded(wide), GREY, Limits())[0, 0], torch.from_numpy(RAMP) / 255)


def claiming(width, height):
    """A PNG whose header claims a size that its few bytes do not hold."""
    whole = bytearray(encoded(RAMP))
    whole[16:24] = struct.pack(">II", width, height)
    whole[29:33] = struct.pack(">I", zlib.crc32(bytes(whole[12:29])))
    return bytes(whole)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "empty"),
        (b"\0" * 2_000_001, "larger than 2 MB"),
        (claiming(60_000, 60_000), "more than 1 million pixels"),
        (claiming(1001, 1000), "more than 1 million pixels"),
        (claiming(100, 100), "no whole image"),
        (encoded(RAMP)[:-30], "no whole image"),
        (encoded(COLOUR, "JPEG")[:400], "no whole image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "no whole image"),
        (encoded(RAMP, "TIFF"), "no whole image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no whole image"),
        (b"#!/bin/sh\n", "no whole image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_within_the_limits_is_refused_at_once(content, line):
    begun = time.perf_counter()
    with pytest.raises(Misuse, match=line) as refused:
        read_upload(content, GREY, Limits(megabytes=2, megapixels=1))
    assert "\n" not in str(refused.value)
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize("options", [{"megabytes": 0}, {"megapixels": float("nan")}, {"megabytes": float("inf")}])
def test_limits_are_positive_numbers(options):
    with pytest.raises(Misuse, match="number above 0"):
        Limits(**options)


def malformed(count):
    """Truncated, bent, spliced and invented files, the same ones every time."""
    rng = random.Random(0)  # noqa: S311 - the same files every time
    whole = [encoded(COLOUR, kind) for kind in FORMATS]
    for number in range(count):
        content = bytearray(rng.choice(whole))
        match number % 5:
            case 0:
                content = content[: rng.randrange(len(content) // 2)]
            case 1:
                for _ in range(20):
                    content[rng.randrange(len(content))] = rng.randrange(256)
            case 2:
                content = bytearray(rng.randbytes(rng.randrange(1, 3000)))
            case 3:
                content = content[:30] + bytearray(rng.randbytes(500)) + bytearray(rng.choice(whole))[100:]
            case 4:
                content = bytearray(claiming(rng.randrange(1 << 31), rng.randrange(1 << 31)))
        yield bytes(content)


def test_a_thousand_malformed_files_are_refused_or_read_and_nothing_else():
    refused = 0
    for content in malformed(1000):
        try:
            found = read_upload(content, GREY, Limits(megapixels=1))
        except Misuse:
            refused += 1
        else:
            assert found.shape == (1, *GREY)
            assert bool(((found >= 0) & (found <= 1)).all())
    assert refused > 700
    assert torch.equal(read_upload(encoded(RAMP), GREY, Limits())[0, 0], torch.from_numpy(RAMP) / 255)
