"""What every test shares: one thread, one seed, a deterministic Hypothesis profile, and types that are checked."""

from __future__ import annotations

import os
import signal
from threading import Timer

import jaxtyping
import pytest
import torch
from hypothesis import settings

# Tests run side by side, one process a core: threads of one would wait for those of the other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts in the background what ignores it

settings.register_profile("poise", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("poise")


_CHECKED = 0.3
"""Seconds for which a test checks types: long searches and trainings call the same functions thousands of times."""


def _check_types(check: bool) -> None:
    jaxtyping.config.update("jaxtyping_disable", not check)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    enough = Timer(_CHECKED, _check_types, [False])
    enough.start()
    try:
        return (yield)
    finally:
        enough.cancel()
        enough.join()
        _check_types(True)


@pytest.fixture(autouse=True)
def _one_global_seed():
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """No types are checked at run time, to see what a caller without checks is told."""
    _check_types(False)
