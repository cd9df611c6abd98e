"""Adversarial images that profiles keep: what comes back fools the model, inside ball and box, whatever happened."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from poise.core.misuse import Misuse
from poise.core.norms import inside, length
from poise.core.threat import NORMS, Threat
from poise.data import InMemory
from poise.evaluation import Examination, examine, read_adversarials, read_profile, write_profile
from poise.evaluation.adversarials import adversarials_path, write_adversarials
from poise.evaluation.image_journal import Found, ImageJournal
from poise.evaluation.judge import _Examining
from poise.evaluation.notes import Notes
from poise.evaluation.pixel_formats import Pixels, read_pixels, stored
from tests.models_for_tests import linear_classifier, random_images, small_network

BUDGET = {"linf": 0.05, "l2": 0.3, "l1": 1.5}


def _bytes(classifier, count, seed=0):
    """Images whose values are whole levels, as those of photographs are."""
    images = random_images(classifier, count, seed)
    levels = (images.images(torch.arange(count)) * 255).round().to(torch.uint8)
    return InMemory("made", images.classes, images.ids, images.labels, levels)


def _kept(classifier, images, path, norm="linf", epsilon=None, suite="pgd", **options):
    threat = Threat(norm=norm, epsilon=epsilon or BUDGET[norm])
    examination = Examination(threat=threat, suite=suite, **options)
    return examine(classifier, images, examination, model_address="made", journal=path, keep_adversarials=True)


@pytest.mark.parametrize("norm", NORMS)
def test_every_broken_example_has_an_image_that_fools_the_model_inside_ball_and_box(tmp_path, norm):
    classifier = small_network().eval()
    images, path = _bytes(classifier, 40), tmp_path / "p.parquet"
    made = _kept(classifier, images, path, norm)
    kept = read_adversarials(tmp_path / "p.adversarials.parquet")
    broken = [row for row in range(40) if 0 < made.broken_from[row] < len(made.epsilons)]
    assert len(broken) > 10
    assert kept.ids == tuple(images.ids[row] for row in broken)
    assert kept.points.tolist() == made.broken_from[broken].tolist()
    assert made.adversarials.counts == {name: kept.formats.count(name) for name in ("uint8", "float16", "float32")} | {
        "missing": 0
    }
    assert kept.formats.count("float32") < len(broken) / 4
    found, rows = kept.images(), torch.tensor(broken)
    radius = torch.tensor([kept.epsilon(row) for row in range(len(kept))], dtype=torch.float32)
    assert inside(found, images.images(rows), radius, norm).all()
    assert (classifier(found).argmax(1) != images.labels[rows]).all()


def test_bytes_are_taken_wherever_they_still_fool(tmp_path):
    """In linf, within whole levels, an image on the ball's surface is one of bytes."""
    classifier = linear_classifier(2, (3, 6, 6))
    made = _kept(classifier, _bytes(classifier, 30), tmp_path / "p.parquet", epsilon="8/255")
    assert made.adversarials.counts["uint8"] > 0.8 * sum(made.adversarials.counts.values()) > 5


def _solitary(image, clean, accepts):
    return stored(image[None], clean[None], lambda rows, back: torch.tensor([accepts(back[0])]))[0]


@pytest.mark.parametrize(
    ("allowed", "kind"), [(4 / 255, "uint8"), (0.0101, "float16"), (None, "float32")], ids=["bytes", "half", "single"]
)
def test_the_smallest_format_that_stays_within_the_radius_is_taken(allowed, kind):
    """An image at exactly the radius: bytes hold it where the radius is whole levels, half precision where not."""
    clean = torch.full((1, 2, 2), 100 / 255)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 2, 2)
    image = clean + sign * (allowed or 0.01)

    def accepts(back):
        if allowed is None:
            return torch.equal(back, image)
        reached = (back - clean) * sign
        return bool((reached <= allowed + 1e-7).all() and (reached >= 0.9 * allowed).all())

    found = _solitary(image, clean, accepts)
    assert found.format == kind
    assert len(found.content) == {"uint8": 4, "float16": 8, "float32": 16}[kind]
    assert accepts(read_pixels(found, (1, 2, 2)))


def test_rounding_to_half_precision_never_leaves_the_ball():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(256, (200, 3, 4, 4), generator=generator) / 255
    images = (clean + (torch.rand(clean.shape, generator=generator) * 2 - 1) * 0.05).clamp(0, 1)

    def never_bytes(rows, back):
        return torch.full((len(rows),), bool(torch.equal(back, back.half().float())))

    found = stored(images, clean, never_bytes)
    assert {pixels.format for pixels in found} == {"float16"}
    back = torch.stack([read_pixels(pixels, (3, 4, 4)) for pixels in found])
    near = (images - clean).abs() < 2**-11  # between two values of half precision there may be no third
    assert ((back - clean).abs() <= (images - clean).abs())[~near].all()
    assert (length(back - images, "linf") <= 2**-11).all()


def test_what_no_format_holds_is_left_out():
    assert _solitary(torch.rand(1, 2, 2), torch.rand(1, 2, 2), lambda _: False) is None


class _Fleeting(nn.Module):
    """Wrong on images that single precision does not hold, and on others in some of its passes."""

    def __init__(self, inner, luck):
        super().__init__()
        self.inner, self.luck = inner, luck

    def forward(self, images):
        logits = self.inner(images)
        held = (images == images.float().to(images.dtype)).flatten(1).all(1) & (torch.rand(()) >= self.luck)
        return torch.where(held[:, None], logits, logits.flip(1))


@pytest.mark.parametrize(("suite", "luck"), [("pgd", 0.0), ("autoattack-rand", 0.1)])
def test_an_image_that_cannot_be_kept_is_missing_and_its_outcome_stands(tmp_path, suite, luck):
    """Of a random model one pass in ten is wrong about what was read back; its mean is not."""
    classifier = linear_classifier(2, (1, 3, 3), dtype=torch.float64)
    images = random_images(classifier, 20, agree=1.0)
    classifier.network = _Fleeting(classifier.network, luck)
    made = _kept(classifier, images, tmp_path / "p.parquet", suite=suite)
    assert (made.broken_from == 1).all()
    assert made.adversarials.counts == {"uint8": 0, "float16": 0, "float32": 0, "missing": 20}
    journal = tmp_path / "p.parquet.journal.0"
    before = journal.read_bytes()
    again = _kept(classifier, images, tmp_path / "p.parquet", suite=suite)
    assert journal.read_bytes() == before + b"[2]\n"
    assert np.array_equal(again.broken_from, made.broken_from)
    assert again.adversarials == made.adversarials


class _Killed(Exception):  # noqa: N818
    pass


def _whole_and_journals(tmp_path, classifier, images):
    """A finished profile, and its journals as they were just before it was finished."""
    path = tmp_path / "p.parquet"
    made = _kept(classifier, images, path, suite="fast", batch_size=5)
    return made, path, [tmp_path / f"p.parquet.{kind}.0" for kind in ("journal", "images")]


def test_torn_files_lose_only_what_was_torn(tmp_path, monkeypatch):
    """The outcomes and the images cut at places of their own, as a machine that loses its power may leave them."""
    classifier = small_network().double().eval()
    images = _bytes(classifier, 12)
    made, path, files = _whole_and_journals(tmp_path, classifier, images)
    table, contents = adversarials_path(path).read_bytes(), [file.read_bytes() for file in files]
    rng = np.random.default_rng(0)
    for _ in range(8):
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content[: rng.integers(0, len(content) + 1)])
        again = _kept(classifier, images, path, suite="fast", batch_size=3)
        assert np.array_equal(again.broken_from, made.broken_from)
        assert again.broken_by == made.broken_by
        assert again.adversarials == made.adversarials
        assert adversarials_path(path).read_bytes() == table


def test_the_images_of_two_processes_are_those_of_one(tmp_path):
    """What two processes would each do, one after the other; the second writes what both have found."""
    classifier = small_network().double().eval()
    images = _bytes(classifier, 12)
    whole = _kept(classifier, images, tmp_path / "p.parquet", suite="fast")
    examination = Examination(threat=Threat(epsilon=BUDGET["linf"]), suite="fast")
    for rank in range(2):
        work = _Examining(classifier, images, examination, whole.header)
        keep = (work.pool.logits, work.fetch)
        notes = Notes(tmp_path / "two.parquet", whole.header, images, len(work.units), rank=rank, keep=keep)
        for event in notes.earlier():
            work.settle(event)
        for _ in work.attack(range(rank, 12, 2), notes.write):
            pass
    joined = notes.finished(work.gathered(range(12)))
    assert len(list(tmp_path.glob("two.parquet.images.*"))) == 2
    assert joined.adversarials.digest == whole.adversarials.digest


def test_an_outcome_is_never_on_disk_without_its_image(tmp_path, monkeypatch):
    classifier = small_network().double().eval()
    images, path = _bytes(classifier, 12), tmp_path / "p.parquet"

    def dies(self, events):
        raise _Killed

    monkeypatch.setattr("poise.evaluation.journal.Journal.write", dies)
    with pytest.raises(_Killed):
        _kept(classifier, images, path)
    assert (tmp_path / "p.parquet.images.0").stat().st_size >= 32
    begun, session = (tmp_path / "p.parquet.journal.0").read_bytes().splitlines()
    assert json.loads(begun)["keep_adversarials"] is True
    assert session == b"[1]"


def test_images_of_another_examination_are_refused_by_name(tmp_path):
    classifier = small_network().eval()
    (tmp_path / "p.parquet.images.0").write_bytes(b"x" * 100)
    with pytest.raises(Misuse, match=r"p\.parquet\.images\.0 holds images of another examination"):
        _kept(classifier, _bytes(classifier, 8), tmp_path / "p.parquet")


def test_an_examination_is_resumed_as_it_was_begun(tmp_path):
    classifier = small_network().eval()
    images, path = _bytes(classifier, 8), tmp_path / "p.parquet"
    _kept(classifier, images, path)
    examination = Examination(threat=Threat(epsilon=BUDGET["linf"]), suite="pgd")
    with pytest.raises(
        Misuse, match=r"p\.parquet\.journal\.0 was begun with another keep adversarials \(True, now False"
    ):
        examine(classifier, images, examination, model_address="made", journal=path)
    with pytest.raises(Misuse, match="say by journal= where it will stand"):
        examine(classifier, images, examination, model_address="made", keep_adversarials=True)


@pytest.mark.parametrize("cut", range(0, 180, 7))
def test_a_journal_of_images_cut_anywhere_gives_its_whole_records(tmp_path, cut):
    journal = ImageJournal(tmp_path / "p", "m" * 32, 5)
    journal.open()
    written = [Found(row, 3 - row % 2, Pixels("uint8", bytes([row] * 12))) for row in range(5)]
    journal.write(written)
    file = tmp_path / "p.images.0"
    record = (file.stat().st_size - 32) // 5
    file.write_bytes(file.read_bytes()[:cut])
    whole = max(0, min(5, (cut - 32) // record))
    again = ImageJournal(tmp_path / "p", "m" * 32, 5)
    again.open()
    again.write(written[whole:])
    again.scan()
    assert list(again.read(range(5))) == written
    assert file.stat().st_size == 32 + 5 * record


def test_the_image_within_the_smallest_ball_counts_and_a_damaged_one_ends_the_file(tmp_path):
    journal = ImageJournal(tmp_path / "p", "m" * 32, 3)
    journal.open()
    wide, tight, other = (
        Found(0, 4, Pixels("uint8", b"a")),
        Found(0, 2, Pixels("float16", b"bb")),
        Found(1, 1, Pixels("uint8", b"c")),
    )
    journal.write([wide, tight, other])
    journal.scan()
    assert list(journal.read([1, 0, 2])) == [other, tight, None]
    assert [journal.holds(0, point) for point in range(5)] == [False, False, True, False, True]
    content = bytearray((tmp_path / "p.images.0").read_bytes())
    content[-4] ^= 1
    (tmp_path / "p.images.0").write_bytes(content)
    journal.scan()
    assert list(journal.read([1, 0])) == [None, tight]


def test_an_image_that_no_format_holds_is_known_and_none(tmp_path):
    journal = ImageJournal(tmp_path / "p", "m" * 32, 3)
    journal.open()
    wide, other = Found(0, 4, Pixels("uint8", b"a")), Found(1, 1, Pixels("uint8", b"c"))
    journal.write([wide, Found(0, 2, None), Found(2, 3, None)])
    again = ImageJournal(tmp_path / "p", "m" * 32, 3)
    again.open()
    again.write([other])
    again.scan()
    assert list(again.read([0, 1, 2])) == [wide, other, None]
    assert [again.holds(0, point) for point in range(5)] == [False, False, True, False, True]
    assert again.holds(2, 3)


def _sample(tmp_path, count=150):
    from poise.evaluation.adversarials import Origin

    origin = Origin(model="m", data="d", norm="linf", epsilons=(0.0, 0.1), shape=(1, 2, 2))
    records = [(f"image/{row}", 1, Pixels("uint8", bytes([row, 0, 0, 255]))) for row in range(count)]
    return write_adversarials(records, origin, tmp_path / "a.adversarials.parquet")


def test_images_are_read_by_row_in_any_order(tmp_path):
    assert _sample(tmp_path)["uint8"] == 150
    kept = read_adversarials(tmp_path / "a.adversarials.parquet")
    rows = [140, 3, 3, 64, 63]
    assert (kept.images(rows)[:, 0, 0, 0] * 255).round().tolist() == rows
    assert torch.equal(torch.cat([found for _, found in kept.batches(40)]), kept.images())
    with pytest.raises(IndexError, match="there is no image 150"):
        kept.images([150])


def test_any_tool_can_read_the_table(tmp_path):
    _sample(tmp_path, 2)
    assert pq.read_table(tmp_path / "a.adversarials.parquet").to_pylist()[1] == {
        "id": "image/1",
        "point": 1,
        "epsilon": 0.1,
        "format": "uint8",
        "pixels": b"\x01\x00\x00\xff",
    }


@pytest.mark.parametrize("keep", [0, 3, 100, 400, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, keep):
    _sample(tmp_path)
    path = tmp_path / "a.adversarials.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Misuse, match=r"a\.adversarials\.parquet cannot be read as adversarial images"):
        read_adversarials(path)


def test_foreign_and_missing_files_are_refused_by_name(tmp_path):
    path = tmp_path / "f.adversarials.parquet"
    with pytest.raises(Misuse, match=r"there are no adversarial images at .*--keep-adversarials"):
        read_adversarials(path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(Misuse, match=r"f\.adversarials\.parquet cannot be read"):
        read_adversarials(path)


def test_a_profile_leads_to_its_images_and_to_no_others(tmp_path):
    classifier = small_network().eval()
    path = tmp_path / "p.parquet"
    made = _kept(classifier, _bytes(classifier, 20), path)
    write_profile(made, path)
    assert read_profile(path).adversarials == made.adversarials
    assert read_adversarials(path).digest == made.adversarials.digest
    _sample(tmp_path).clear()
    (tmp_path / "a.adversarials.parquet").replace(adversarials_path(path))
    with pytest.raises(Misuse, match=r"p\.adversarials\.parquet has digest .* was written with"):
        read_adversarials(path)
