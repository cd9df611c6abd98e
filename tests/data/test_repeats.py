from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.data import InMemory, Splits, decoded, open_data, repeats
from tests.data.pictures_on_disk import flat, write_folder


def _shop(root):
    """Two classes with splits of their own, in which no picture stands twice."""
    for number, part in enumerate(("train", "validation", "test")):
        write_folder(root / part, per_class=5)
        for path in sorted((root / part).glob("*/*.png")):
            flat((int(path.stem), number, int(path.parent.name == "dog"))).save(path)
    return root


def _found(root):
    return {(each.split, each.other, each.contradicts): each.pairs for each in repeats(open_data(f"folder:{root}"))}


def test_pictures_that_stand_once_are_no_matter(tmp_path):
    assert _found(_shop(tmp_path)) == {}


def test_copies_across_splits_and_under_two_classes_are_told_by_name(tmp_path):
    root = _shop(tmp_path)
    copies = {
        "train/cat/7.png": "train/cat/0.png",  # twice the same, in one place: a matter of taste
        "train/dog/8.png": "train/cat/1.png",
        "validation/cat/0.png": "train/cat/2.png",
        "validation/dog/9.png": "train/cat/2.png",
        "test/cat/a.png": "validation/cat/1.png",
        "test/dog/b.png": "train/dog/3.png",
        "test/dog/c.png": "train/dog/3.png",
        "test/cat/d.png": "test/dog/0.png",
    }
    for copy, original in copies.items():
        (root / copy).write_bytes((root / original).read_bytes())
    found = _found(root)
    kinds = {
        ("train", "train", True): {("train/dog/8.png", "train/cat/1.png")},
        ("validation", "train", False): {("validation/cat/0.png", "train/cat/2.png")},
        ("validation", "train", True): {("validation/dog/9.png", "train/cat/2.png")},
        ("test", "validation", False): {("test/cat/a.png", "validation/cat/1.png")},
        ("test", "train", False): {("test/dog/b.png", "train/dog/3.png"), ("test/dog/c.png", "train/dog/3.png")},
        ("test", "test", True): {("test/dog/0.png", "test/cat/d.png")},
    }
    assert {kind: set(pairs) for kind, pairs in found.items()} == kinds


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), min_size=3, max_size=24), st.data())
def test_the_same_as_comparing_every_two_images(images, data):
    sides = data.draw(st.lists(st.integers(0, 2), min_size=len(images), max_size=len(images)))
    sides[:3] = [0, 1, 2]
    parts = [[at for at, side in enumerate(sides) if side == wanted] for wanted in range(3)]
    splits = Splits(*(_held([images[at] for at in part], part) for part in parts))
    expected = set()
    everything = [at for part in parts for at in part]
    for place, at in enumerate(everything):
        before = next((each for each in everything[:place] if images[each][0] == images[at][0]), None)
        if before is not None and (sides[at] != sides[before] or images[at][1] != images[before][1]):
            expected.add((sides[at], sides[before], images[at][1] != images[before][1], str(at), str(before)))
    names = ("train", "validation", "test")
    found = {
        (names.index(each.split), names.index(each.other), each.contradicts, *pair)
        for each in repeats(splits)
        for pair in each.pairs
    }
    assert found == expected


def _held(images, ids):
    pixels = torch.tensor([value for value, _ in images], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    labels = torch.tensor([label for _, label in images])
    return InMemory("held", ("no", "yes"), tuple(map(str, ids)), labels, pixels.contiguous())


def test_marks_are_those_of_the_files_decoded_or_not(tmp_path):
    images = open_data(f"folder:{write_folder(tmp_path)}").train
    marks = images.marks()
    assert len(set(marks.tolist())) == len(images)
    assert np.array_equal(decoded(images).marks(), marks)
    rows = torch.tensor([3, 1])
    assert np.array_equal(decoded(images).select(rows).marks(), marks[[3, 1]])
    assert np.array_equal(images.select(rows).marks(), marks[[3, 1]])
