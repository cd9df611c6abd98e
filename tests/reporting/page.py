"""A report as a reader sees it: its text, its tables and the figures that its charts are drawn from."""

from __future__ import annotations

import json
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """What stands in a page, by element; scripts and styles apart from the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, dict] = {}
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.depth = 0
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)
        self.close()
        self.unclosed = [tag for tag, _ in self._open]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"th", "td"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        expected, _ = self._open.pop()
        assert expected == tag, f"{expected} was closed by {tag}"

    def handle_data(self, data):
        inside = [tag for tag, _ in self._open]
        if "script" in inside:
            name = self._open[-1][1].get("data-for")
            if name:
                self.figures[name] = json.loads(data)
        elif "style" not in inside:
            self.words.append(data)
            if {"th", "td"} & set(inside):
                self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        """Everything a reader reads, with plain single spaces."""
        return " ".join(" ".join(self.words).split())

    def lines(self, key: str) -> dict[str, dict]:
        """The traces of a chart that carry a name, that is, all but the shaded bands."""
        return {trace["name"]: trace for trace in self.figures[key]["data"] if "name" in trace}

    def bands(self, key: str) -> list[dict]:
        """The shaded bands of a chart."""
        return [trace for trace in self.figures[key]["data"] if trace.get("fill") == "toself"]
