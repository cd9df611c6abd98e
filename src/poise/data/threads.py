"""Work done by background threads a few steps ahead of its reader, in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = min(16, os.cpu_count() or 1)
"""Threads that decode. Pillow decodes outside Python's global lock, so that they really run side by side."""


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results of `work` on each item, in the order of the items, at most a few of them waiting to be read.

    What `work` raises is raised where its result would have come. When the reader stops early, work not yet begun is
    dropped.
    """
    pool = ThreadPoolExecutor(WORKERS)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > WORKERS + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def chunks(count: int, size: int) -> list[range]:
    """The numbers 0 .. count - 1 in consecutive ranges of at most `size`."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
