"""Small pieces of HTML, each of which escapes what it is given."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from poise.reporting.palette import Style

_SHAPES = {
    "circle": '<circle cx="13" cy="7" r="4"/>',
    "square": '<path d="M9.5 3.5h7v7h-7z"/>',
    "diamond": '<path d="M13 2l5 5-5 5-5-5z"/>',
    "triangle-up": '<path d="M13 2l5 9h-10z"/>',
    "cross": '<path d="M11.5 2h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z"/>',
    "triangle-down": '<path d="M13 12l5-9h-10z"/>',
    "star": '<path d="M13 1.5l1.7 3.7 4 .4-3 2.7.9 4-3.6-2.1-3.6 2.1.9-4-3-2.7 4-.4z"/>',
}


def element(tag: str, *inside: str, **attributes: str) -> str:
    """An element around markup; attribute values are escaped, and `class_` stands for class."""
    words = "".join(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"' for name, value in attributes.items())
    return f"<{tag}{words}>{''.join(inside)}</{tag}>"


def paragraphs(sentences: Iterable[str], **attributes: str) -> str:
    """Plain sentences, each a paragraph."""
    return "\n".join(element("p", escape(sentence), **attributes) for sentence in sentences)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table whose first column names its rows.

    Args:
        headings: plain text.
        rows: cells as markup, which the caller has escaped.
        caption: plain text; "" for none.
    """
    head = element("tr", *(element("th", escape(heading), scope="col") for heading in headings))
    body = (element("tr", element("th", row[0], scope="row"), *_cells(row[1:], headings[1:])) for row in rows)
    title = element("caption", escape(caption)) if caption else ""
    inside = element("table", title, element("thead", head), "\n", element("tbody", "\n".join(body)))
    return element("div", inside, class_="scroll")


def _cells(cells: Sequence[str], headings: Sequence[str]) -> list[str]:
    """Cells that know their headings, as on a narrow screen they stand one below the other."""
    return [element("td", cell, data_label=heading) for cell, heading in zip(cells, headings, strict=True)]


def details(summary: str, inside: str) -> str:
    """Something that opens on a click."""
    return element("details", element("summary", escape(summary)), "\n", inside)


def definitions(pairs: Mapping[str, str]) -> str:
    """Terms and what they stand for, both plain text."""
    return element(
        "dl", *(f"{element('dt', escape(term))}{element('dd', escape(said))}\n" for term, said in pairs.items())
    )


def swatch(style: Style) -> str:
    """The line and marker by which charts show a run."""
    stroke = f'stroke="{style.colour}" stroke-width="2.5" stroke-dasharray="{" ".join(map(str, style.dash)) or "none"}"'
    drawn = f'<path d="M1 7h24" {stroke}/>{_SHAPES[style.symbol]}'
    return f'<svg class="swatch" viewBox="0 0 26 14" fill="{style.colour}" aria-hidden="true">{drawn}</svg>'


def run_name(style: Style, name: str) -> str:
    """The name of a run beside the line by which charts show it."""
    return element("span", swatch(style), element("span", escape(name)), class_="run")


def section(title: str, inside: str) -> str:
    """A section under its heading."""
    return element("section", element("h2", escape(title)), "\n", inside)


def scripts(*sources: str) -> str:
    """Our own programs, as they are."""
    return "\n".join(element("script", source) for source in sources)


def embedded_json(value: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end the element or open a comment.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
