"""Write docs/evidence.md: what the benchmarks' result files say, question by question.

    python -m benchmarks.evidence [--scale medium] [--machine NAME] [--page docs/evidence.md]

Nothing is measured here. Every table is made from a file in benchmarks/results, whose command stands under it, and what
has no file yet is left out visibly. The words are those of benchmarks/evidence.md.jinja and, where they speak of what
was measured, of benchmarks/results/remarks.MACHINE.yaml, which a person writes: each remark names the digest of the
figures that it is about, and is left out where they are others. `make evidence` runs the benchmarks first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import yaml

from benchmarks import tables
from benchmarks.harness import RESULTS, ROOT, machine
from benchmarks.run import COSTS, QUESTIONS, SCALES, words

TEMPLATE = Path(__file__).with_suffix(".md.jinja")
LONGER = "transfer-long"
"""What belongs to a question beside the result of its scale."""


@dataclass(frozen=True)
class Result:
    """A benchmark's result file.

    Args:
        record: what it holds.
    """

    record: Mapping[str, Any]

    @property
    def figures(self) -> Mapping[str, Any]:
        """What was measured."""
        figures: Mapping[str, Any] = self.record["figures"]
        return figures

    @property
    def origin(self) -> str:
        """The command, the machine and the versions, as the line under a table."""
        where, versions = self.record["machine"], self.record["versions"]
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        kind = f"{where['kind']}{' with bf16' if where.get('bf16') else ''}"
        at = f", commit {self.record['commit']} of {self.record['date']}" if self.record.get("commit") else ""
        return f"`{self.record['command']}`; {kind}, {where['threads']} thread(s); {told}{at}"

    @property
    def claims(self) -> Sequence[Mapping[str, Any]]:
        """Figures with their floors."""
        claims: Sequence[Mapping[str, Any]] = self.record["claims"]
        return claims


def main() -> int:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", default=machine(), help="whose results; default: this one's, %(default)s")
    parser.add_argument("--scale", choices=SCALES, help="of the questions; default: the largest that there is")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "evidence.md")
    options = parser.parse_args()
    scale = options.scale or largest(options.machine)
    questions = {name: result for name in QUESTIONS if (result := read(f"{name}-{scale}", options.machine))}
    if longer := read(LONGER, options.machine):
        questions[LONGER] = longer
    costs = {name: result for name in COSTS if (result := read(name, options.machine))}
    from benchmarks.pictures import Pictures  # noqa: PLC0415 - matplotlib is there where something was measured

    text = written(scale, questions, costs, remarks(options.machine), Pictures(options.page.parent / "images"))
    options.page.write_text(text, encoding="utf-8")
    print(f"{options.page}, scale {scale}: {', '.join([*questions, *costs]) or 'no results'}")
    return 0


def read(name: str, on: str) -> Result | None:
    """The result of a benchmark on a machine, if there is one."""
    path = RESULTS / f"{name}.{on}.json"
    return Result(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def largest(on: str) -> str:
    """The largest scale of which a machine has a result; the least where it has none."""
    return next((scale for scale in SCALES[::-1] if any(read(f"{name}-{scale}", on) for name in QUESTIONS)), SCALES[0])


def remarks(on: str) -> Mapping[str, Mapping[str, str]]:
    """What a person who looked at a machine's results has to say: by the result's name, the digest and the text."""
    path = RESULTS / f"remarks.{on}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def digest(results: Iterable[Result]) -> str:
    """By what a remark names the figures that it is about."""
    told = json.dumps([[each.figures, each.claims] for each in results], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def remark(known: Mapping[str, Mapping[str, str]], name: str, results: Sequence[Result]) -> str:
    """The remark on some results; "" where there is none, or it is about other figures."""
    if name not in known:
        return ""
    of, text = known[name]["of"], known[name]["text"]
    if of == digest(results):
        return text
    print(f"the remark on {name} is left out: it is about the figures {of}, and these are {digest(results)}")
    return ""


def written(
    scale: str,
    questions: Mapping[str, Result],
    costs: Mapping[str, Result],
    known: Mapping[str, Mapping[str, str]],
    pictures: object,
) -> str:
    """The page as Markdown.

    Args:
        scale: of the questions.
        questions: their results, by benchmark.
        costs: results of the benchmarks of single parts.
        known: what `remarks` returns.
        pictures: draws, and keeps what it draws (`benchmarks.pictures.Pictures`).
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701
    )
    functions: Mapping[str, Callable[..., str]] = tables.FUNCTIONS
    environment.globals |= {**functions, "pictures": pictures, "command": partial(_command, scale=scale)}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        scale=scale,
        found=questions,
        costs=costs,
        absent=[f"`{_command(name, scale)}`" for name in COSTS if name not in costs],
        remarks={name: remark(known, name, [result]) for name, result in {**questions, **costs}.items()}
        | {"costs": remark(known, "costs", list(costs.values()))},
    )
    return re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n"


def _command(name: str, scale: str) -> str:
    """What measures a result."""
    return f"python -m benchmarks.{' '.join(words(name, scale, 'ADDRESS', 2))}"


if __name__ == "__main__":
    sys.exit(main())
