import io

import numpy as np
import pytest
import torch
from PIL import Image

from poise.core.misuse import Misuse
from poise.data.decoding import central_part, header, tensor_of

ORIENTATION = 0x0112
RAMP = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40


def reopened(image, kind="png", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return Image.open(io.BytesIO(stream.getvalue()))


def test_rgb_pixels_come_channels_first():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    found = tensor_of(reopened(Image.fromarray(pixels)), 3, None)
    assert torch.equal(found, torch.from_numpy(pixels).permute(2, 0, 1))
    assert found.is_contiguous()


def test_grey_pixels_are_one_channel_or_three_equal_ones():
    assert tensor_of(reopened(Image.fromarray(RAMP)), 1, None).tolist() == [RAMP.tolist()]
    assert tensor_of(reopened(Image.fromarray(RAMP)), 3, None).tolist() == [RAMP.tolist()] * 3


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, RAMP),
        (2, RAMP[:, ::-1]),
        (3, RAMP[::-1, ::-1]),
        (4, RAMP[::-1]),
        (5, RAMP.T),
        (6, np.rot90(RAMP, -1)),
        (7, RAMP[::-1, ::-1].T),
        (8, np.rot90(RAMP)),
    ],
)
def test_exif_orientation_is_applied_and_seen_in_the_header(kind, orientation, upright):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert tensor_of(reopened(Image.fromarray(RAMP), kind, exif=exif), 1, None)[0].tolist() == upright.tolist()
    found = header(reopened(Image.fromarray(RAMP), kind, exif=exif))
    assert found == (True, upright.shape[1], upright.shape[0])


def test_sixteen_bit_grey_is_scaled_not_clipped():
    values = np.array([[0, 128, 257, 32896, 65535]], dtype=np.uint16)
    image = reopened(Image.fromarray(values))
    assert header(image).grey
    assert tensor_of(image, 1, None).tolist() == [[[0, 0, 1, 128, 255]]]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (1, 1), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 51)), (255, 204, 204)),
        (Image.new("LA", (1, 1), (10, 0)), (255, 255, 255)),
        (Image.new("RGB", (1, 1), (9, 80, 200)).convert("P", palette=Image.Palette.ADAPTIVE), (9, 80, 200)),
        (Image.new("1", (1, 1), 1), (255, 255, 255)),
    ],
)
def test_palettes_and_alpha_become_opaque_rgb(image, expected):
    assert tensor_of(reopened(image), 3, None)[:, 0, 0].tolist() == list(expected)


def test_cmyk_becomes_rgb():
    found = tensor_of(reopened(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "jpeg", quality=100), 3, None)
    assert (found[:, 4, 4].int() - torch.tensor([255, 0, 0])).abs().max() <= 3


@pytest.mark.parametrize(
    ("mode", "grey"), [("L", True), ("LA", True), ("1", True), ("RGB", False), ("P", False), ("RGBA", False)]
)
def test_header_tells_grey_from_colour(mode, grey):
    assert header(reopened(Image.new(mode, (5, 3)))) == (grey, 5, 3)


def test_the_central_part_is_cut_then_resized():
    wide = np.zeros((4, 10), dtype=np.uint8)
    wide[:, 3:7] = RAMP[0, 1]
    assert central_part(10, 4) == (3, 0, 7, 4)
    assert central_part(4, 9) == (0, 2, 4, 6)
    assert central_part(10, 4, 1 / 2) == (4, 0, 6, 4)
    assert central_part(10, 4, 5) == (0, 1, 10, 3)
    assert tensor_of(Image.fromarray(wide), 1, (2, 4)).shape == (1, 2, 4)
    assert tensor_of(Image.fromarray(wide), 1, 2).tolist() == [[[40, 40], [40, 40]]]
    assert tensor_of(Image.fromarray(RAMP), 1, 2).tolist() == [RAMP[:, :2].tolist()]


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 32))
    inner = tensor_of(Image.fromarray(stripes), 1, 16)[0, 2:-2, 2:-2].int()
    assert (inner - 127).abs().max() <= 3


def test_floating_point_pixels_are_refused():
    with pytest.raises(Misuse, match="floating-point numbers of unknown range; save it with 8 or 16 bits"):
        tensor_of(Image.new("F", (2, 2)), 1, None)
