import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from poise.core.misuse import Misuse
from poise.core.streams import Stream, example_keys
from poise.data import AUGMENTATIONS, augment

STREAM = Stream.seeded(3)


def some(count, channels=3, height=16, width=16, dtype=torch.float32):
    images = torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(1)).to(dtype)
    return images, example_keys([str(number) for number in range(count)])


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@given(rows=st.lists(st.integers(0, 11), min_size=1, max_size=12))
@settings(max_examples=20, deadline=None)
def test_an_example_is_changed_alike_in_every_batch(kind, rows):
    images, ids = some(12)
    whole = augment(images, ids, kind, STREAM)
    assert torch.equal(augment(images[rows], ids[rows], kind, STREAM), whole[rows])


@pytest.mark.parametrize("kind", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shape_dtype_range_and_input_are_kept(kind, dtype, channels):
    images, ids = some(6, channels, 8, 12, dtype)
    before, state = images.clone(), torch.get_rng_state()
    result = augment(images, ids, kind, STREAM)
    assert (result.shape, result.dtype) == (images.shape, dtype)
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(augment(images[:0], ids[:0], kind, STREAM)) == 0


@pytest.mark.parametrize("kind", ["flip", "crop", "finetune"])
def test_streams_differ(kind):
    images, ids = some(40)
    assert not torch.equal(augment(images, ids, kind, STREAM), augment(images, ids, kind, STREAM.fold(1)))


def test_none_changes_nothing():
    images, ids = some(3)
    assert torch.equal(augment(images, ids, "none", STREAM), images)


def test_flip_mirrors_half_of_the_images_exactly():
    images, ids = some(400, 1, 2, 3)
    result = augment(images, ids, "flip", STREAM)
    kept = (result == images).flatten(1).all(1)
    mirrored = (result == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(kept, ~mirrored)
    assert 150 < int(mirrored.sum()) < 250


def test_crop_is_a_whole_pixel_window_of_the_padded_image():
    images, ids = some(300, 2, 16, 24)
    flipped = augment(images, ids, "flip", STREAM)
    result = augment(images, ids, "crop", STREAM)
    seen = set()
    for image, found in zip(flipped, result, strict=True):
        padded = torch.nn.functional.pad(image, (3, 3, 2, 2))
        windows = [(y, x) for y in range(5) for x in range(7) if torch.equal(padded[:, y : y + 16, x : x + 24], found)]
        assert len(windows) == 1
        seen.add(windows[0])
    assert len(seen) == 35


def test_crop_moves_by_at_most_four_pixels_at_32():
    image = torch.zeros(1, 1, 32, 32)
    image[..., 16, 16] = 1
    images, ids = image.expand(500, 1, 32, 32), example_keys([str(number) for number in range(500)])
    rows = augment(images, ids, "crop", STREAM).sum((1, 3)).argmax(1)
    assert (int(rows.min()), int(rows.max())) == (12, 20)


def test_finetune_scales_brightness_of_flat_grey_by_75_to_125_percent():
    images, ids = torch.full((600, 1, 9, 9), 0.5), example_keys([str(number) for number in range(600)])
    centre = augment(images, ids, "finetune", STREAM)[:, 0, 4, 4] / 0.5
    assert 0.75 - 1e-5 <= float(centre.min()) < 0.77
    assert 1.23 < float(centre.max()) <= 1.25 + 1e-5
    assert abs(float(centre.mean()) - 1) < 0.03


def test_finetune_contrast_spreads_around_the_mean_and_saturation_around_grey(monkeypatch):
    draws = torch.tensor([[0.5, 1.0, 0.5], [0.5, 0.5, 0.0]])
    monkeypatch.setattr(Stream, "uniform", lambda *_, **__: draws)
    from poise.data.augment import _jittered

    image = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 2, 2).clone()
    image[:, 0] += 0.1
    contrast, saturation = _jittered(torch.stack([image, image]), torch.arange(2), STREAM)
    luma = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    assert torch.allclose(contrast, luma.mean() + 1.25 * (image - luma.mean()), atol=1e-6)
    assert torch.allclose(saturation, luma + 0.75 * (image - luma), atol=1e-6)


def test_saturation_does_nothing_to_grey_images(monkeypatch):
    from poise.data.augment import _jittered

    images, ids = some(5, 1)
    monkeypatch.setattr(Stream, "uniform", lambda *_, **__: torch.tensor([[0.5, 0.5, 1.0]]).expand(5, 3))
    assert torch.equal(_jittered(images, ids, STREAM), images)


def test_finetune_rotates_by_up_to_15_degrees_as_pillow_does(monkeypatch):
    from poise.data.augment import _rotated

    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(40.0), indexing="ij")
    smooth = 0.5 + 0.4 * torch.sin(x / 5) * torch.cos(y / 4)
    for draw, degrees in ((0.0, -15), (1.0, 15), (0.75, 7.5)):
        monkeypatch.setattr(Stream, "uniform", lambda *_, draw=draw, **__: torch.tensor([draw], dtype=torch.float64))
        found = _rotated(smooth[None, None], torch.arange(1), STREAM)[0, 0]
        judges = [
            torch.from_numpy(
                np.array(Image.fromarray(smooth.numpy()).rotate(sign * degrees, Image.Resampling.BILINEAR))
            )
            for sign in (1, -1)
        ]
        inside = slice(7, -7), slice(10, -10)
        errors = sorted(float((found - judge)[inside].abs().max()) for judge in judges)
        assert errors[0] < 1e-3
        assert errors[1] > 0.1


def test_rotation_angles_fill_the_range():
    ids = example_keys([str(number) for number in range(300)])
    image = torch.zeros(1, 1, 33, 33)
    image[..., 16, 30] = 1  # 14 pixels right of the centre
    found = augment(image.expand(300, 1, 33, 33), ids, "finetune", STREAM)
    mass = found / found.sum((2, 3), keepdim=True)
    down = (mass.sum(3)[:, 0] * torch.arange(33)).sum(1) - 16
    right = (mass.sum(2)[:, 0] * torch.arange(33)).sum(1) - 16
    angles = torch.rad2deg(torch.atan2(down, right.abs()))
    # Contrast leaves a faint grey behind, so angles are read to within a degree where it is absent.
    clean = angles[found.flatten(1).median(1).values < 1e-6]
    assert len(clean) > 50
    assert 13 < float(clean.abs().max()) < 16
    assert math.isclose(float(clean.mean()), 0, abs_tol=3)


def test_unknown_kind_is_refused():
    images, ids = some(1)
    with pytest.raises(Misuse, match=r"^unknown augmentation 'flipp'; did you mean 'flip'"):
        augment(images, ids, "flipp", STREAM)
