import threading

import pytest
import torch

from poise.core.misuse import Misuse
from poise.core.streams import example_keys
from poise.data import InMemory, Lazy, decoded

IDS = ("a", "b", "c", "d")
LABELS = torch.tensor([0, 1, 1, 0])
BYTES = torch.arange(4 * 12, dtype=torch.uint8).view(4, 3, 2, 2) * 5


def in_memory(ids=IDS, labels=LABELS, tensor=BYTES, classes=("x", "y")):
    return InMemory("here", classes, ids, labels, tensor)


def lazy(tensor=BYTES, calls=None, mark=None):
    def read(row):
        if calls is not None:
            calls.append(row)
        return tensor[row]

    return Lazy("here", ("x", "y"), IDS, LABELS, (3, 2, 2), read, mark)


def test_images_are_bytes_over_255_exactly():
    tensor = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    images = in_memory(tensor=tensor).images(torch.arange(4))
    assert images.dtype == torch.float32
    assert images.flatten().tolist() == (torch.arange(256) / 255).tolist()


def test_float_pixels_stay_as_they_are():
    tensor = torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(in_memory(tensor=tensor).images(torch.tensor([2])), tensor[2:3])


@pytest.mark.parametrize("make", [in_memory, lazy])
def test_pixels_and_select_follow_the_rows(make):
    images = make()
    assert torch.equal(images.pixels(torch.tensor([2, 0])), BYTES[[2, 0]])
    part = images.select(torch.tensor([3, 1])).select(torch.tensor([1, 0]))
    assert part.ids == ("b", "d")
    assert part.labels.tolist() == [1, 0]
    assert torch.equal(part.pixels(torch.tensor([0, 1])), BYTES[[1, 3]])
    assert torch.equal(part.keys, example_keys(("b", "d")))
    assert (len(part), part.shape, part.classes, part.address) == (2, (3, 2, 2), ("x", "y"), "here")


def test_lazy_decodes_nothing_before_it_is_asked():
    calls = []
    images = lazy(calls=calls, mark=str).select(torch.tensor([2, 1]))
    images.digest()
    assert calls == []
    images.pixels(torch.tensor([0]))
    assert calls == [2]


def test_no_rows_give_no_images():
    none = torch.empty(0, dtype=torch.int64)
    assert lazy().images(none).shape == (0, 3, 2, 2)
    assert in_memory().images(none).shape == (0, 3, 2, 2)


def test_digest_changes_with_ids_labels_and_pixels_only():
    digest = in_memory().digest()
    assert in_memory().digest() == digest
    assert InMemory("elsewhere", ("x", "y"), IDS, LABELS, BYTES).digest() == digest
    changed = BYTES.clone()
    changed[3, 2, 1, 1] += 1
    others = [
        in_memory(ids=("a", "b", "c", "e")).digest(),
        in_memory(labels=torch.tensor([0, 1, 1, 1])).digest(),
        in_memory(tensor=changed).digest(),
        in_memory(tensor=BYTES.view(4, 3, 1, 4)).digest(),
        in_memory().select(torch.arange(3)).digest(),
    ]
    assert len({digest, *others}) == 6


@pytest.mark.parametrize("mark", [None, "mark-{}".format])
def test_digest_survives_decoding_selecting_and_moving(mark):
    images, rows = lazy(mark=mark), torch.tensor([2, 0])
    whole = decoded(images)
    assert isinstance(whole, InMemory)
    assert whole.digest() == images.digest()
    assert whole.select(rows).digest() == images.select(rows).digest() != images.digest()
    assert whole.to(torch.device("cpu")).digest() == images.digest()


def test_digest_is_computed_once():
    marked = []
    images = lazy(mark=lambda row: marked.append(row) or str(row))
    assert images.digest() == images.digest()
    assert sorted(marked) == [0, 1, 2, 3]


def test_decoded_keeps_pixels_and_heeds_the_limit():
    images = lazy()
    whole = decoded(images, limit_bytes=48)
    assert isinstance(whole, InMemory)
    assert torch.equal(whole.pixels(torch.arange(4)), BYTES)
    assert whole.ids == IDS
    assert decoded(images, limit_bytes=47) is images
    assert decoded(whole) is whole


def test_decoding_happens_in_the_background():
    seen = []
    decoded(Lazy("t", ("x", "y"), IDS, LABELS, (3, 2, 2), lambda row: seen.append(threading.get_ident()) or BYTES[row]))
    assert threading.get_ident() not in seen
    assert len(seen) == 4


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": ("a", "b", "a", "d")}, "here has two examples with the id 'a'; ids must be unique"),
        ({"ids": ("a", "b", "c")}, "here has 3 ids but 4 labels; there must be one of each per image"),
        ({"classes": ("x",)}, r"here has 1 class \(x\); a classifier needs at least two"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, r"here has labels 0 \.\. 2; with 2 classes they must be 0 \.\. 1"),
        ({"labels": torch.tensor([0, 1, -1, 0])}, r"here has labels -1 \.\. 1; with 2 classes they must be 0 \.\. 1"),
        ({"labels": torch.tensor([0.1, 0.9, 1, 0])}, r"here has labels of type torch.float32; they must be whole .*"),
        ({"tensor": BYTES.long()}, r"here has images of type torch.int64; they must be uint8, or floats in \[0, 1\]"),
    ],
)
def test_a_set_that_breaks_its_promises_is_refused(change, message):
    with pytest.raises(Misuse, match=f"^{message}$"):
        in_memory(**change)
