"""The journal of a certification keeps its outcomes whatever happens when it is taken up again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poise.evaluation.certificates.journal import OutcomeJournal
from poise.evaluation.certificates.sampling import Outcome

_HEADER = {"model": "m", "seed": 1}
_OUTCOMES = [Outcome(0, 2, 0.25, 100), Outcome(3, 1, 0.0, 50)]


def _begun(path: Path) -> OutcomeJournal:
    journal = OutcomeJournal(path, _HEADER)
    journal.open()
    journal.write(_OUTCOMES)
    return journal


@pytest.mark.parametrize("torn", [b"", b"[4, 1"])
def test_a_full_disk_at_the_taking_up_loses_no_outcome(tmp_path, monkeypatch, torn):
    path = tmp_path / "made" / "journal"
    _begun(path)
    path.write_bytes(path.read_bytes() + torn)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        patch.setattr(Path, "write_bytes", full)
        OutcomeJournal(path, _HEADER).open()
    assert [outcome for _, outcome in OutcomeJournal(path, _HEADER).replay()] == _OUTCOMES


def test_it_is_begun_once_and_again_where_even_the_header_was_torn(tmp_path):
    path = tmp_path / "journal"
    _begun(path)
    whole = path.read_bytes()
    OutcomeJournal(path, _HEADER).open()
    assert path.read_bytes() == whole
    path.write_bytes(whole[:5])
    _begun(path)
    assert path.read_bytes() == whole
