import threading
import time

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.data import InMemory, Lazy, augment, batches, batches_per_epoch

CPU = torch.device("cpu")
STREAM = Stream.seeded(5)


def numbered(count, *, lazy=False, calls=None):
    """Image i is filled with the byte i."""
    ids, labels = tuple(f"id {row}" for row in range(count)), torch.arange(count) % 2
    tensor = torch.arange(count, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8)
    if not lazy:
        return InMemory("here", ("x", "y"), ids, labels, tensor)

    def read(row):
        if calls is not None:
            calls.append((row, threading.get_ident()))
        return tensor[row]

    return Lazy("here", ("x", "y"), ids, labels, (1, 8, 8), read)


def rows(batch):
    return (batch.images[:, 0, 0, 0] * 255).round().long().tolist()


def run(images, **options):
    return list(batches(images, batch_size=options.pop("batch_size", 4), device=CPU, **options))


@pytest.mark.parametrize("lazy", [False, True])
def test_evaluation_goes_by_row_and_drops_nothing(lazy):
    images = numbered(9, lazy=lazy)
    found = run(images)
    assert [rows(batch) for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert found[1].labels.tolist() == [0, 1, 0, 1]
    assert torch.equal(found[1].ids, images.keys[4:8])
    assert found[2].images.dtype == torch.float32
    assert torch.equal(found[2].images, torch.full((1, 1, 8, 8), 8 / 255))


def test_training_permutes_by_epoch_and_keeps_labels_with_images():
    images = numbered(10)
    first, again, second = (run(images, stream=STREAM, epoch=epoch) for epoch in (0, 0, 1))
    order = [row for batch in first for row in rows(batch)]
    assert order == STREAM.fold("order", 0).permutation(10).tolist() != list(range(10))
    assert [rows(batch) for batch in first] == [rows(batch) for batch in again] != [rows(batch) for batch in second]
    for batch in first:
        assert batch.labels.tolist() == [row % 2 for row in rows(batch)]
        assert torch.equal(batch.ids, images.keys[rows(batch)])


@pytest.mark.parametrize(("count", "sizes"), [(10, [4, 4, 2]), (9, [4, 4]), (11, [4, 4, 3]), (8, [4, 4])])
@pytest.mark.parametrize("world", [1, 2])
def test_an_epoch_has_the_same_batches_for_any_world_and_each_process_that_works_gets_two(count, sizes, world):
    found = [run(numbered(count), stream=STREAM, rank=rank, world=world) for rank in range(world)]
    assert [sum(map(len, parts)) for parts in zip(*found, strict=True)] == sizes
    assert batches_per_epoch(count, 4, training=True) == len(sizes)
    assert all(len(part) != 1 for parts in found for part in parts)


@given(count=st.integers(1, 40), size=st.integers(1, 12), world=st.integers(1, 5), training=st.booleans())
@settings(max_examples=60, deadline=None)
def test_slices_partition_each_batch(count, size, world, training):
    assume(size >= world and batches_per_epoch(count, size, training=training) and (count >= 2 * world or not training))
    images, stream = numbered(count), STREAM if training else None
    parts = [run(images, batch_size=size, stream=stream, rank=rank, world=world) for rank in range(world)]
    whole = run(images, batch_size=size, stream=stream)
    expected = batches_per_epoch(count, size, training=training)
    assert {len(part) for part in parts} == {expected}
    for index in range(expected):
        slices = [rows(part[index]) for part in parts]
        assert [row for piece in slices for row in piece] == rows(whole[index])
        working = [len(piece) for piece in slices if piece]
        assert max(working) - min(working) <= 1
        assert len(working) == max(1, min(world, len(whole[index]) // (2 if training else 1)))


@pytest.mark.parametrize("augmentation", ["crop", "finetune"])
def test_augmentation_is_the_same_for_any_world_and_by_epoch(augmentation):
    images = numbered(12, lazy=True)
    options = {"stream": STREAM, "augmentation": augmentation, "epoch": 2}
    whole = run(images, **options)
    halves = [run(images, rank=rank, world=2, **options) for rank in range(2)]
    for index, batch in enumerate(whole):
        assert torch.equal(torch.cat([half[index].images for half in halves]), batch.images)
        plain = images.images(torch.tensor([images.keys.tolist().index(key) for key in batch.ids.tolist()]))
        expected = augment(plain, batch.ids, augmentation, STREAM.fold("augment", 2))
        assert torch.equal(batch.images, expected)
        assert not torch.equal(batch.images, plain)


@pytest.mark.parametrize("lazy", [False, True])
def test_skip_resumes_without_decoding(lazy):
    calls = []
    options = {"stream": STREAM, "augmentation": "crop", "epoch": 1}
    expected = run(numbered(12), **options)[2:]
    found = run(numbered(12, lazy=lazy, calls=calls), skip=2, **options)
    assert [batch.ids.tolist() for batch in found] == [batch.ids.tolist() for batch in expected]
    assert torch.equal(found[0].images, expected[0].images)
    assert len(calls) == (4 if lazy else 0)
    assert run(numbered(12), skip=3, **options) == []


def test_lazy_sets_are_decoded_ahead_in_the_background_but_not_all_at_once(monkeypatch):
    monkeypatch.setattr("poise.data.threads.WORKERS", 2)
    calls = []
    reader = batches(numbered(200, lazy=True, calls=calls), batch_size=2, device=CPU)
    assert calls == []
    assert rows(next(reader)) == [0, 1]
    time.sleep(0.3)
    assert len(calls) == 8, "four batches: two in work, one ready, one read"
    reader.close()
    assert len(calls) == 8
    assert threading.get_ident() not in {thread for _, thread in calls}


def test_decoding_errors_reach_the_reader_at_their_batch():
    def read(row):
        if row == 5:
            raise Misuse("cannot read the image five")
        return torch.zeros(1, 2, 2, dtype=torch.uint8)

    images = Lazy("here", ("x", "y"), tuple("abcdefgh"), torch.arange(8) % 2, (1, 2, 2), read)
    reader = batches(images, batch_size=4, device=CPU)
    assert len(next(reader)) == 4
    with pytest.raises(Misuse, match="cannot read the image five"):
        next(reader)


def test_a_set_moved_to_a_device_gives_the_same_batches():
    images = numbered(10)
    for here, there in zip(run(images, stream=STREAM), run(images.to(CPU), stream=STREAM), strict=True):
        assert torch.equal(here.images, there.images)
        assert torch.equal(here.ids, there.ids)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("lazy", [False, True])
def test_batches_on_the_gpu_equal_those_on_the_cpu(lazy):
    images, device = numbered(250, lazy=lazy), torch.device("cuda")
    options = {"batch_size": 32, "stream": STREAM, "augmentation": "crop"}
    for here, there in zip(
        batches(images, device=CPU, **options),
        batches(images if lazy else images.to(device), device=device, **options),
        strict=True,
    ):
        assert there.images.is_cuda
        assert torch.equal(here.images, there.images.cpu())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world": 2}, r"rank must be in 0 \.\. world - 1; got rank 2 of world 2"),
        ({"batch_size": 1, "world": 2}, "batch size 1 does not give each of 2 processes an example"),
        ({"batch_size": 0}, "batch size 0 does not give each of 1 processes an example"),
        ({"skip": -1}, "the number of batches to skip must be at least 0; got -1"),
        ({"augmentation": "flip"}, "augmentation 'flip' needs a stream to draw from"),
        ({"augmentation": "blur", "stream": STREAM}, "unknown augmentation 'blur'; valid: crop, finetune, flip, none"),
        ({"batch_size": 8, "world": 4, "stream": STREAM}, "6 examples are too few .* training needs at least 2 each"),
    ],
)
def test_impossible_arguments_are_refused_before_the_first_batch(options, message):
    with pytest.raises(Misuse, match=message):
        batches(numbered(6), **{"batch_size": 4, "device": CPU, **options})
