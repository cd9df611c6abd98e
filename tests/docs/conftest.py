"""Every function is type-checked by the tests of its own room; here the way through all of them counts."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _fast(unchecked):
    pass
