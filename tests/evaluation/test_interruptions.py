"""Ten thousand interruptions of an examination whose answers are known beforehand.

What a process leaves when it is killed is a prefix of what it would have written: outcomes are appended, and nothing
else on disk changes until the profile is whole. So the real journal, brackets, queues and judge are driven by a pool
that looks its answers up in a random table, the journal is cut at every byte, and every cut is taken up again, some of
them several times over.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from poise.attacks.pool import Outcome
from poise.attacks.suites import Unit
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.evaluation import Examination, examine, read_profile, write_profile
from poise.evaluation.brackets import Brackets, Work
from poise.evaluation.image_journal import Found, ImageJournal
from poise.evaluation.journal import Event, Journal, remove_journals
from poise.evaluation.judge import _Examining
from poise.evaluation.pixel_formats import Pixels
from poise.evaluation.standing import Standing
from tests.evaluation.profiles import header, profile
from tests.models_for_tests import random_images, small_network

EXAMPLES, POINTS, UNITS = 4, 6, 3
EPSILONS = tuple(point / 10 for point in range(POINTS))


class _Table:
    """A pool without a model: an item succeeds where the table says so, within a ball that the table says too."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.smallest = rng.integers(1, POINTS + 1, size=(EXAMPLES, UNITS))  # the least point at which a unit succeeds
        self.overshoot = rng.integers(0, 2, size=(EXAMPLES, UNITS))  # how much smaller the ball of its image may be
        self.batch = int(rng.integers(1, 4))
        self.asked: list[tuple[int, Work]] = []

    def answer(self, row: int, work: Work) -> Event:
        self.asked.append((row, work))
        least = int(self.smallest[row, work.unit])
        if work.point < least:
            return Event(row, work, None)
        return Event(row, work, max(work.point - int(self.overshoot[row, work.unit]), 1))

    def open(self):
        return _Nothing()

    def run(self, search, waiting, through=None):
        assert through is None
        while waiting:
            items = [waiting.popleft() for _ in range(min(self.batch, len(waiting)))]
            yield [Outcome(item, None) for item in items]


class _Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def _examining(table: _Table, mode: str) -> _Examining:
    """The judge's own state and loop, with the table in place of searches and model."""
    work = object.__new__(_Examining)
    searches = [SimpleNamespace(name=f"search {index}") for index in range(UNITS - 1)]
    work.units = tuple(Unit(searches[min(index, UNITS - 2)], rank=index) for index in range(UNITS))
    work.images, work.header = range(EXAMPLES), header(EPSILONS, mode=mode)
    work.clean = SimpleNamespace(rivals=np.zeros((EXAMPLES, UNITS), dtype=np.int64))
    work.brackets = Brackets(np.ones(EXAMPLES, dtype=bool), POINTS, UNITS, mode)
    work.pool, work.surrogates, work.luck = table, {}, Stream.seeded(0)
    work._standing = lambda rows: Standing(work.brackets, rows, [1.0] * UNITS)
    work._events = lambda search, outcomes: [table.answer(o.item.row, o.item.tag) for o in outcomes]
    return work


def _verdicts(work: _Examining):
    brackets = work.brackets
    return [brackets.robust_to.tolist(), brackets.broken_from.tolist(), brackets.broken_by.tolist()]


def _run(table: _Table, mode: str, path, rows=range(EXAMPLES), rank=0):
    """One process: it takes up what is on disk and works to the end; its verdicts, and what it asked the table."""
    work, table.asked = _examining(table, mode), []
    journal = Journal(path, work.header, EXAMPLES, UNITS, rank)
    for event in journal.replay():
        work.settle(event)
    journal.open()
    for _ in work.attack(rows, lambda events, _: journal.write(events)):
        pass
    return _verdicts(work), list(table.asked)


def _lines(content: bytes) -> list[tuple[int, Work]]:
    """The outcomes of the whole lines."""
    found = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    return [(line[0], Work(line[1], line[2])) for line in found if isinstance(line, list) and len(line) == 4]


@pytest.fixture
def shelf(tmp_path):
    """A folder in memory where the machine has one: the test opens tens of thousands of files."""
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as name:
        yield Path(name)


@pytest.mark.usefixtures("unchecked")  # the stand-ins are of other types
def test_ten_thousand_interruptions_lose_nothing_and_repeat_nothing(shelf):
    """Whatever byte the journal ends at, no whole line is attacked again and the verdicts are those of one run."""
    path, cuts = shelf / "p.parquet", 0
    file = shelf / "p.parquet.journal.0"
    for seed in itertools.count():
        table, mode = _Table(seed), ("bisect", "ascending")[seed % 2]
        file.unlink(missing_ok=True)
        verdicts, asked = _run(table, mode, path)
        whole = file.read_bytes()
        assert Counter(_lines(whole)) == Counter(asked)
        assert max(Counter(asked).values()) == 1
        start = whole.index(b"\n") - 3 if seed else 0  # once through the header, which is the longest line by far
        for cut in range(start, len(whole) + 1):
            file.write_bytes(whole[:cut])
            settled = _lines(whole[:cut])
            found, again = _run(table, mode, path)
            assert found == verdicts
            assert Counter(settled) + Counter(again) == Counter(asked)
            assert Counter(_lines(file.read_bytes())) == Counter(asked)
            cuts += 1
        if cuts >= 10_000:
            break


@pytest.mark.usefixtures("unchecked")  # the stand-ins are of other types
def test_runs_killed_again_and_again_by_any_number_of_processes_repeat_nothing(shelf):
    """Every session is cut somewhere after it began; examples change hands when the number of processes changes."""
    rng = np.random.default_rng(0)
    for seed in range(80):
        table, mode = _Table(seed), ("bisect", "ascending")[seed % 2]
        path = shelf / f"{seed}.parquet"
        verdicts, asked = _run(table, mode, path)
        remove_journals(path)
        for _ in range(6):
            world = int(rng.integers(1, 4))
            before = {file: file.stat().st_size for file in _journals(path)}
            found = [_run(table, mode, path, range(rank, EXAMPLES, world), rank)[0] for rank in range(world)]
            assert _merged(found, world) == verdicts
            assert Counter(line for file in _journals(path) for line in _lines(file.read_bytes())) == Counter(asked)
            for file in _journals(path):
                size = file.stat().st_size
                file.write_bytes(file.read_bytes()[: rng.integers(min(before.get(file, 0), size), size + 1)])
        remove_journals(path)


def _journals(path):
    return sorted(path.parent.glob(f"{path.name}.journal.*"))


def _merged(found, world: int):
    """What several processes know together: each its own examples."""
    return [[found[row % world][column][row] for row in range(EXAMPLES)] for column in range(3)]


def _write_some(path):
    journal = Journal(path, header(EPSILONS), EXAMPLES, UNITS)
    journal.open()
    journal.write([Event(0, Work(0, 3), None), Event(1, Work(2, 2), 1)])
    return path.with_name("p.parquet.journal.0")


@pytest.mark.parametrize(
    "line",
    [
        b"[0,0,3]",
        b"[0,0,3,null,1]",
        b"[1]",
        b"[0]",
        b"[]",
        b"[true,0,3,null]",
        b"[false,0,3,null]",
        b"[9,0,3,null]",
        b"[-1,0,3,null]",
        b"[0,3,3,null]",
        b"[0,0,6,null]",
        b"[0,0,0,null]",
        b"[0,0,3,4]",
        b"[0,0,3,0]",
        b"[0,0,3,true]",
        b"[0.0,0,3,null]",
        b'["0",0,3,null]',
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[0,0,3,null][0,0,3,null]",
    ],
)
def test_a_line_that_no_journal_has_is_refused_with_file_and_number(tmp_path, line):
    file = _write_some(tmp_path / "p.parquet")
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(Misuse, match=r"p\.parquet\.journal\.0 is damaged in line 5"):
        list(Journal(tmp_path / "p.parquet", header(EPSILONS), EXAMPLES, UNITS).replay())


@pytest.mark.parametrize("first", [b"garbage", b"[1,2]", b"{}", b'{"a":1}', b"\x00\xff", b"null", b"PAR1"])
def test_a_foreign_file_in_a_journals_place_is_refused_by_name(tmp_path, first):
    (tmp_path / "p.parquet.journal.0").write_bytes(first + b"\n")
    with pytest.raises(Misuse, match=r"p\.parquet\.journal\.0 is no journal of a profile"):
        list(Journal(tmp_path / "p.parquet", header(EPSILONS), EXAMPLES, UNITS).replay())


def _refused(read, name: str) -> bool:
    """Whether a file is refused; if so by its name, and in no other way."""
    try:
        read()
    except Misuse as error:
        return name in str(error) or pytest.fail(str(error))
    return False


def test_a_journal_with_any_byte_changed_is_read_or_refused_by_name(tmp_path):
    path = tmp_path / "p.parquet"
    file = _write_some(path)
    whole, refused = file.read_bytes(), 0
    rng = np.random.default_rng(0)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] = int(rng.integers(256))
        file.write_bytes(changed)
        refused += _refused(lambda: list(Journal(path, header(EPSILONS), EXAMPLES, UNITS).replay()), file.name)
    assert refused > len(whole) / 2


def test_a_profile_with_any_byte_changed_or_cut_is_read_or_refused_by_name(tmp_path):
    path = tmp_path / "p.parquet"
    write_profile(profile([0, 1, 2, 3]), path)
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for _ in range(400):
        changed = bytearray(whole)
        if rng.random() < 0.3:
            changed = changed[: rng.integers(len(changed))]
        else:
            changed[rng.integers(len(changed))] = rng.integers(256)
        path.write_bytes(changed)
        refused += _refused(lambda: read_profile(path), path.name)
    assert refused > 150


@pytest.mark.parametrize("name", ["a[1].parquet", "a*.parquet", "a?.parquet", "[!b].parquet"])
def test_a_name_is_no_pattern(tmp_path, name):
    """What is taken up and removed are the journals of that very name, and none of a name that it would match."""
    events = [Event(0, Work(0, 3), None), Event(1, Work(2, 2), 1)]
    written = [_journals_of(tmp_path / each, events) for each in (name, "a1.parquet", "ab.parquet")]
    journal, images = Journal(tmp_path / name, header(EPSILONS), EXAMPLES, UNITS), written[0][1]
    assert list(journal.replay()) == events
    images.scan()
    assert images.holds(1, 1)
    remove_journals(tmp_path / name)
    assert {file.name.split(".")[0] for file in tmp_path.iterdir()} == {"a1", "ab"}


def _journals_of(path, events):
    journal, images = Journal(path, header(EPSILONS), EXAMPLES, UNITS), ImageJournal(path, "m" * 32, EXAMPLES)
    journal.open()
    images.open()
    images.write([Found(1, 1, Pixels("uint8", b"a"))])
    journal.write(events)
    return journal, images


def _small():
    """A real examination: model, images and options."""
    classifier = small_network().double().eval()
    examination = Examination(threat=Threat(epsilon="0.05"), suite="fast", batch_size=3)
    return classifier, random_images(classifier, 12), examination


def _examined(path):
    classifier, images, examination = _small()
    return examine(classifier, images, examination, model_address="a", journal=path, keep_adversarials=True)


_DYING = """
import os, pathlib, signal, sys
from poise.evaluation.journal import Journal
from tests.evaluation.test_interruptions import _examined
left, write = [int(sys.argv[2])], Journal.write
def dies(self, events):
    write(self, events)
    left[0] -= 1
    if not left[0]:
        os.truncate(self._own, os.path.getsize(self._own) - 3)
        os.kill(os.getpid(), signal.SIGKILL)
Journal.write = dies
_examined(pathlib.Path(sys.argv[1]))
"""


def test_a_killed_process_is_taken_up(tmp_path):
    """kill -9 of a real process with its last outcome half on disk, images kept."""
    whole = _examined(tmp_path / "whole.parquet")
    path = tmp_path / "cut.parquet"
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", _DYING, str(path), "4"], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut.adversarials.parquet").exists()
    again = _examined(path)
    assert np.array_equal(again.broken_from, whole.broken_from)
    assert again.broken_by == whole.broken_by
    assert again.adversarials.digest == whole.adversarials.digest
