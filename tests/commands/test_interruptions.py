"""Ctrl-C during a search, at bad moments."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress

import pytest

from poise.commands.searching.interruptions import listening


def _press() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(0.01)


def test_an_interruption_that_a_library_swallows_is_raised_again():
    with listening() as interruptions:
        interruptions.heed()
        with suppress(KeyboardInterrupt):  # as Python does where an object is cleared away
            _press()
        with pytest.raises(KeyboardInterrupt):
            interruptions.heed()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_does_not_come_between():
    done = []
    with pytest.raises(KeyboardInterrupt), listening() as interruptions:
        try:
            _press()
        except KeyboardInterrupt:
            interruptions.deaf = True
            _press()
            done.append("left in order")
            raise
    assert done == ["left in order"]


def test_where_nobody_listens_nothing_is_changed():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with listening() as interruptions:
            _press()
            interruptions.heed()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_of_its_own_may_search_too():
    found, before = [], signal.getsignal(signal.SIGINT)

    def search():
        with listening() as interruptions:
            interruptions.heed()
            found.append(signal.getsignal(signal.SIGINT))

    other = threading.Thread(target=search)
    other.start()
    other.join()
    assert found == [before]
