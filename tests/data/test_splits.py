import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.core.streams import hashed
from poise.data import InMemory, Splits, decoded, sample, split
from poise.data.splits import Parts, divided, limited


def numbered(ids, classes=("x", "y"), side=1):
    labels = torch.arange(len(ids)) % 2
    return InMemory("here", classes, tuple(ids), labels, torch.zeros(len(ids), 1, side, side))


def sides(parts):
    return {identity: name for name, part in parts.named().items() for identity in part.ids}


def cut(ids, validation=0.1, test=0.2):
    return sides(divided(Parts(numbered(ids)), validation, test))


IDS = st.lists(st.text(max_size=6), min_size=1, max_size=40, unique=True)


@given(IDS, IDS)
@settings(max_examples=60, deadline=None)
def test_adding_images_never_moves_an_existing_one(old, new):
    before, after = cut(old), cut(sorted({*old, *new}))
    assert set(before) == set(old)
    assert all(after[identity] == side for identity, side in before.items())


@given(IDS)
@settings(max_examples=30, deadline=None)
def test_the_side_is_decided_by_the_hash_of_the_id(ids):
    def side(identity):
        place = hashed("split", identity) / 2**63
        return "validation" if place < 0.1 else "test" if place >= 0.8 else "train"

    assert cut(ids) == {identity: side(identity) for identity in ids}


def test_one_share_does_not_touch_the_other_split():
    ids = [str(number) for number in range(500)]
    small, large = cut(ids, validation=0.1), cut(ids, validation=0.3)
    assert [i for i in ids if small[i] == "test"] == [i for i in ids if large[i] == "test"]
    assert {i for i in ids if small[i] == "validation"} < {i for i in ids if large[i] == "validation"}


def test_shares_hold_and_nothing_is_lost():
    count = 4000
    splits = split(numbered([f"image {number}" for number in range(count)]), validation=0.1, test=0.2)
    for part, share in ((splits.validation, 0.1), (splits.test, 0.2), (splits.train, 0.7)):
        assert abs(len(part) - share * count) < 5 * math.sqrt(count * share * (1 - share))
    assert len({*splits.train.ids, *splits.validation.ids, *splits.test.ids}) == count


def test_own_splits_are_kept_even_when_they_are_empty():
    train = numbered([str(number) for number in range(200)])
    own = numbered(["t0", "t1"])
    parts = divided(Parts(train, test=own), 0.1, 0.2)
    assert parts.test is own
    assert set(parts.validation.ids) == {i for i, side in cut(train.ids).items() if side == "validation"}
    assert len(parts.train) + len(parts.validation) == 200
    parts = divided(Parts(train, validation=own, test=own.select(torch.empty(0, dtype=torch.int64))), 0.1, 0.2)
    assert (parts.validation, len(parts.train), len(parts.test)) == (own, 200, 0)


def test_limits_nest_and_keep_the_order():
    images = numbered([str(number) for number in range(50)])
    small, large = (limited(Parts(images), limit).train.ids for limit in (5, 20))
    assert len(small) == 5
    assert set(small) < set(large)
    assert list(large) == sorted(large, key=int)
    assert large != images.ids[:20]
    assert limited(Parts(images), 99).train.ids == limited(Parts(images), None).train.ids == images.ids


@pytest.mark.parametrize(("validation", "test"), [(0, 0.2), (0.1, 0), (0.5, 0.5), (-0.1, 0.2), (math.nan, 0.2)])
def test_impossible_shares_are_refused(validation, test):
    with pytest.raises(Misuse, match=r"must be shares above 0 that sum to less than 1, such as 0.1 and 0.2; got"):
        split(numbered("abcdef"), validation, test)


def test_an_empty_split_is_refused():
    with pytest.raises(
        Misuse, match=r"^the validation split of here is empty; add images, or bring splits of your own"
    ):
        split(numbered("ab"), validation=0.001)


def test_splits_that_do_not_fit_together_are_refused():
    train, validation, test = numbered("ab"), numbered("cd"), numbered("ef")
    assert Splits(train, validation, test).skipped == ()
    with pytest.raises(Misuse, match="the id 'b' of the test split also stands in another one"):
        Splits(train, validation, numbered("eb"))
    with pytest.raises(Misuse, match="the test split of here differs from train in its classes or shape"):
        Splits(train, validation, numbered("ef", classes=("x", "z")))
    with pytest.raises(Misuse, match=r"the validation split of here differs .* \(1, 2, 2\), train 2 of \(1, 1, 1\)"):
        Splits(train, numbered("cd", side=2), test)


def test_a_sample_of_a_set_sorted_by_class_has_all_its_classes():
    names = [f"{label}/{number}.png" for label in "abcde" for number in range(100)]
    labels = torch.arange(5).repeat_interleave(100)
    images = InMemory("sorted", tuple("abcde"), tuple(names), labels, torch.rand(500, 1, 1, 1))
    some = sample(images, 100)
    counts = some.labels.bincount(minlength=5)
    assert len(some) == 100
    assert counts.min() >= 8  # 20 each in the mean, with a standard deviation of 4
    assert sorted(some.ids, key=names.index) == list(some.ids)
    assert set(sample(images, 30).ids) < set(some.ids)
    assert sample(sample(images, 100), 30).ids == sample(images, 30).ids == limited(Parts(images), 30).train.ids
    assert sample(images, 500) is decoded(images)
    assert len(sample(images, 501)) == 500
