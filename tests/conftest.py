"""What every test shares: a deterministic Hypothesis profile and a linear model with known answers."""

from __future__ import annotations

import os

import jaxtyping
import pytest
import torch
from hypothesis import settings

# Tests run side by side, one process a core: threads of one would wait for those of the other.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

settings.register_profile("poise", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("poise")


@pytest.fixture(autouse=True)
def _one_global_seed():
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Run-time type checks off, to see what a caller without them is told."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
