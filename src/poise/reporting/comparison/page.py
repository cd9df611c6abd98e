"""A comparison as one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from poise.evaluation import Estimate, Profile
from poise.evaluation.comparison import Comparison
from poise.evaluation.flips import rate
from poise.reporting import markup
from poise.reporting.chart import Chart, Line, epsilon_label, epsilon_places
from poise.reporting.comparison.gallery import Picture, gallery
from poise.reporting.comparison.rows import (
    Rows,
    change_rows,
    class_rows,
    flip_rows,
    gate_rows,
    outcome_rows,
    rate_rows,
)
from poise.reporting.comparison.sentences import headline, summary
from poise.reporting.conditions import Conditions
from poise.reporting.origin import origin
from poise.reporting.page import write_page
from poise.reporting.palette import Style
from poise.reporting.sections import drawn_chart
from poise.reporting.subject import Subject

_LISTED = 200
_DRAWN = {"lost": "lost", "gained": "gained", "union": "lost here or clean", "joint": "lost here and clean"}


def write_comparison(comparison: Comparison, path: Path, pictures: Sequence[Picture] = ()) -> None:
    """Write a comparison as a page: verdict, flips over epsilon, the four outcomes, classes, lost images, origins.

    The page loads nothing from anywhere and holds no date, so that the same comparison gives the same bytes.

    Args:
        comparison: what to show.
        path: the HTML file; an older one is replaced whole.
        pictures: lost examples to be seen.
    """
    pair = comparison.pair
    curves = markup.section("Flips over epsilon", _curves(comparison)) if pair and len(pair.epsilons) > 1 else ""
    body = [_opening(comparison), _gate(comparison), curves, *_tables(comparison), _lost(comparison, pictures)]
    if pair is not None:
        body.append(markup.section("Models", _models(comparison, pair.old, pair.new)))
    title = f"{comparison.old} → {comparison.new}"
    write_page(path, title, "\n".join(filter(None, body)), charts=bool(curves))


def _opening(comparison: Comparison) -> str:
    notes = comparison.pair.notes if comparison.pair else ()
    said = [] if comparison.judgement is None else [headline(comparison.judgement)]
    inside = [markup.paragraphs([*said, *summary(comparison)]), markup.paragraphs(notes, class_="warning")]
    return markup.section("Summary", "\n".join(inside))


def _gate(comparison: Comparison) -> str:
    if comparison.judgement is None:
        return ""
    promise = markup.element("div", markup.paragraphs([comparison.judgement.gate.promise]), class_="notes")
    table = _table(gate_rows(comparison.judgement.verdicts))
    return markup.element("section", markup.element("h2", "Release gate"), table, promise, class_="texts")


def _curves(comparison: Comparison) -> str:
    assert comparison.pair is not None  # noqa: S101 - there are no curves without it
    conditions = Conditions.of(comparison.pair.old)
    places = epsilon_places(conditions)
    series = {name: [rate(getattr(found, field)) for found in comparison.flips] for field, name in _DRAWN.items()}
    for floor in comparison.noise:
        series[f"noise of {floor.of}"] = [floor.rate(point) for point in range(len(places))]
    chart = Chart(
        title="Flips over epsilon",
        x_label=epsilon_label(conditions),
        shares=True,
        lines=tuple(_line(name, at, places, found) for at, (name, found) in enumerate(series.items())),
        whole=False,
    )
    data = _table(flip_rows(comparison)) + _table(rate_rows(comparison))
    return drawn_chart(chart, "flips", str(conditions), data)


def _line(name: str, at: int, places: tuple[float, ...], found: Sequence[Estimate]) -> Line:
    """A line; only what is lost and gained has its band, as more of them would hide each other."""
    band = tuple(found) if name in {"lost", "gained"} else ()
    return Line(name, Style.nth(at), places, tuple(each.value for each in found), band)


def _tables(comparison: Comparison) -> list[str]:
    if comparison.pair is None:
        return []
    results = [_table(rows, rows.title) + _note(rows) for rows in (flip_rows(comparison), outcome_rows(comparison))]
    further = markup.details("Further rates", _table(rate_rows(comparison)) + _note(rate_rows(comparison)))
    return [
        markup.element("section", markup.element("h2", "Old against new"), *results, further, class_="stacked"),
        markup.section(
            "Classes", _table(class_rows(comparison), class_rows(comparison).title) + _note(class_rows(comparison))
        ),
    ]


def _lost(comparison: Comparison, pictures: Sequence[Picture]) -> str:
    """The gallery, and the list of all that flipped."""
    if not comparison.changes:
        return ""
    lost = sum(change.kind == "lost" for change in comparison.changes)
    rest = len(comparison.changes) - _LISTED
    said = [f"{lost} images are lost at some epsilon, and {len(comparison.changes) - lost} gained."]
    listed = markup.details(
        "All of them" if rest <= 0 else f"The first {_LISTED}", _table(change_rows(comparison.changes[:_LISTED]))
    )
    return markup.section("Lost images", markup.paragraphs(said) + gallery(pictures) + listed)


def _models(comparison: Comparison, old: Profile, new: Profile) -> str:
    named = ((f"old: {comparison.old}", old), (f"new: {comparison.new}", new))
    return "\n".join(
        origin(Subject(name, profile, [], "", None), Style.nth(place)) for place, (name, profile) in enumerate(named)
    )


def _table(rows: Rows, caption: str = "") -> str:
    return markup.table(rows.headings, [[_cell(cell) for cell in row] for row in rows.rows], caption)


def _cell(cell: str) -> str:
    """A cell whose interval, if it ends in one, stands back."""
    value, bracket, rest = cell.rpartition(" [")
    if not (bracket and rest.endswith("]")):
        return escape(cell)
    return f"{escape(value)} {markup.element('span', escape(f'[{rest}'), class_='interval')}"


def _note(rows: Rows) -> str:
    return markup.element("div", markup.paragraphs([rows.note]), class_="notes") if rows.note else ""
