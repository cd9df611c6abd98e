"""How each run is told apart in every chart: a colour, and a marker and a dash for those who do not see it."""

from __future__ import annotations

from dataclasses import dataclass

COLOURS = ("#1f7fc4", "#d55e00", "#009e73", "#c565a0", "#a37b00", "#6f7782")
"""After Okabe & Ito (2008), shifted until each has a contrast of at least 3 to the light and to the dark background."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "star")
"""Plotly's markers. Their number and that of the colours have no common divisor, so 42 runs differ."""

DASHES = ((), (7, 5), (2, 4), (12, 6), (9, 3, 2, 3))
"""Strokes and gaps in pixels, () for an unbroken line; where lines coincide, the lower ones show in the gaps."""

BACKGROUNDS = ("#ffffff", "#171a20")
"""Behind the charts in light and in dark; `report.css` uses the same."""


@dataclass(frozen=True)
class Style:
    """How a run is drawn.

    Args:
        colour: as "#rrggbb".
        symbol: plotly's name of a marker.
        dash: strokes and gaps in pixels.
    """

    colour: str
    symbol: str
    dash: tuple[int, ...]

    @classmethod
    def nth(cls, index: int) -> Style:
        """The style of the run at this place in the report."""
        return cls(COLOURS[index % len(COLOURS)], SYMBOLS[index % len(SYMBOLS)], DASHES[index % len(DASHES)])

    def faint(self, opacity: float) -> str:
        """The colour, transparent, as CSS writes it."""
        red, green, blue = (int(self.colour[at : at + 2], 16) for at in (1, 3, 5))
        return f"rgba({red},{green},{blue},{opacity:g})"
