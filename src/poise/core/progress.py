"""How long work tells a watcher where it stands, without knowing who watches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

Watch = Callable[[float, Mapping[str, str]], None]
"""Called with the share of the work that is done, in [0, 1], and a few facts to show beside it."""


def unwatched(share: float, facts: Mapping[str, str]) -> None:
    """Nobody watches."""
