"""Files that are either whole or absent, and digests of what is in memory."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from poise.core.misuse import Misuse


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it replaces `path` in one step when the block ends well.

    A reader sees the old file or the new one, never a part, whatever instant the process dies at. When the block
    fails the temporary file is removed and `path` is as before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """A folder that no other process holds meanwhile; the end of the process lets it go, however it ends.

    Raises:
        Misuse: if another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Misuse(f"another process is at work in {folder}; wait for it, or choose another folder") from None
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def digest_tensors(named: Iterable[tuple[str, Tensor]]) -> str:
    """A digest of names, dtypes, shapes and values, the same on every machine and device: 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in named:
        state.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def digest_words(words: Iterable[str]) -> str:
    """A digest of a sequence of texts: 32 hexadecimal digits."""
    state = hashlib.blake2b(digest_size=16)
    for word in words:
        encoded = word.encode()
        state.update(len(encoded).to_bytes(8, "big") + encoded)
    return state.hexdigest()
