"""A file of lines loses nothing but a torn one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from poise.core.line_file import LineFile


@pytest.mark.parametrize(("held", "left"), [(b"", b""), (b"a", b""), (b"a\n", b"a\n"), (b"a\nbc\n{", b"a\nbc\n")])
def test_a_torn_last_line_is_cut_off_and_lines_are_appended(tmp_path, held, left):
    path = tmp_path / "lines"
    path.write_bytes(held)
    file = LineFile(path)
    assert path.read_bytes() == left
    assert file.empty == (not left)
    file.append("d\ne\n")
    file.append("")
    assert path.read_bytes() == left + b"d\ne\n"


def test_the_folder_and_the_file_are_made(tmp_path):
    assert LineFile(tmp_path / "new" / "lines").empty
    assert (tmp_path / "new" / "lines").read_bytes() == b""


def test_short_writes_are_gone_on_with(tmp_path, monkeypatch):
    write, path = os.write, tmp_path / "lines"
    file = LineFile(path)
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:3]))
    file.append("a longer line\n")
    assert path.read_bytes() == b"a longer line\n"


def test_whole_lines_are_never_written_again(tmp_path, monkeypatch):
    """A process that ends, or a disk that is full, at the opening leaves them where they are."""
    path = tmp_path / "lines"
    path.write_bytes(b"a\nb\nto")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    file = LineFile(path)
    with pytest.raises(OSError, match="No space"):
        file.append("c\n")
    assert path.read_bytes() == b"a\nb\n"
