"""Profiles as CSV: for verdicts that other tools gave, and for people who want to read poise's elsewhere.

    # norm: linf
    # epsilons: 0, 4/255, 8/255
    id,label,prediction,broken_from
    cat/001.png,0,0,8/255
    dog/007.png,1,1,

`label` and `prediction` (of the clean image) are class numbers from 0. `broken_from` is the smallest epsilon of the
grid at which an adversarial image is known: 0 where the clean image is wrong, empty for none. Where a verdict is still
open, `robust_to` says up to which epsilon every attack failed; without that column all lines are settled. Instead of
both, one column for each epsilon beyond 0, named by it, may say 1 for withstood, 0 for broken, nothing for open; the
grid then need not be given. `margin` and `broken_by` may stand there too.

Lines that begin with # before the header describe the profile. `norm` must be there; `classes` (a JSON list of names),
`seed`, `model`, `model_address`, `data` (a digest), `data_address`, `split`, `suite`, `mode`, `proposing`, `whole` (how
many examples the data set has, where these are only some), `surrogates` (a JSON list of further outputs that were
attacked) and `findings` (a JSON list of what soundness checks found, as poise writes it) may be. What is not described
cannot be checked when profiles are compared, and the comparison says so.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poise.core.files import write_text
from poise.core.misuse import Misuse, first_line, suggestion
from poise.core.threat import NORMS, Epsilon
from poise.evaluation.csv_lines import CsvLines
from poise.evaluation.profile import Header, Profile
from poise.evaluation.soundness.finding import Finding

_PLAIN = ("model", "model_address", "data", "data_address", "split", "suite", "mode", "proposing")
_LISTS = ("classes", "surrogates")
_DESCRIBED = ("norm", "epsilons", "seed", "whole", *_LISTS, *_PLAIN, "findings")
_NEEDED = ("id", "label", "prediction")
_COLUMNS = (*_NEEDED, "margin", "robust_to", "broken_from", "broken_by")


class _Row(NamedTuple):
    """An example, in the order of a profile's fields."""

    identity: str
    label: int
    prediction: int
    margin: float
    robust_to: int
    broken_from: int
    broken_by: str


def write_profile_csv(profile: Profile, path: Path) -> None:
    """Write a profile as CSV, whole; `read_profile_csv` gives its verdicts, margins and findings back as they were.

    Versions, certificates and the place of adversarial images are not kept; in addresses, what is more than a single
    space becomes one.
    """
    header, text = profile.header, io.StringIO(newline="")
    grid = [str(Epsilon(point)) for point in header.epsilons]
    described: dict[str, object] = {"norm": header.norm, "epsilons": ", ".join(grid), "seed": header.seed}
    if header.whole is not None:
        described["whole"] = header.whole
    described |= {name: json.dumps(getattr(header, name), ensure_ascii=False) for name in _LISTS}
    described |= {name: " ".join(getattr(header, name).split()) for name in _PLAIN}
    if profile.findings:
        described["findings"] = json.dumps([finding.to_dict() for finding in profile.findings])
    text.writelines(f"# {name}: {value}\n" for name, value in described.items())
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    held, broken = ["", *grid], [*grid, ""]
    for row, identity in enumerate(profile.ids):
        numbers = int(profile.labels[row]), int(profile.predictions[row]), repr(float(profile.margins[row]))
        bracket = held[int(profile.robust_to[row]) + 1], broken[int(profile.broken_from[row])]
        writer.writerow([identity, *numbers, *bracket, profile.broken_by[row]])
    write_text(path, text.getvalue())


def read_profile_csv(path: Path) -> Profile:
    """Read a profile from CSV, in the form that this module describes.

    Raises:
        Misuse: if there is no such file, or it holds anything that is not understood; the line is named.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise Misuse(f"there is no profile at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misuse(f"{path} cannot be read as CSV: {first_line(error)}") from error
    source = _Source(text, str(path))
    try:
        return source.profile()
    except csv.Error as error:
        raise source.wrong(str(error)) from error


class _Source(CsvLines):
    """A profile while it is read."""

    classes: tuple[str, ...] = ()

    def profile(self) -> Profile:
        described = self.description()
        self.classes = described.get("classes", ())
        names = self.next() or []
        self.check_names(names)
        grid = self.grid(names, described)
        rows: list[_Row] = []
        found: dict[str, int] = {}
        while (cells := self.next()) is not None:
            if len(cells) != len(names):
                raise self.wrong(f"there are {len(cells)} cells below {len(names)} headings")
            rows.append(self.row(dict(zip(names, cells, strict=True)), grid))
            if rows[-1].identity in found:
                raise self.wrong(f"{rows[-1].identity!r} stands there twice, first in line {found[rows[-1].identity]}")
            found[rows[-1].identity] = self.line
        if not rows:
            raise self.wrong("there is no example below the header")
        if described.get("whole", len(rows)) < len(rows):
            raise self.wrong(f"{len(rows)} examples, and '# whole: {described['whole']}' says that there are no more")
        ids, labels, predictions, margins, robust_to, broken_from, broken_by = zip(*rows, strict=True)
        return Profile(
            header=_header(described, grid),
            ids=ids,
            margins=np.array(margins, dtype=np.float64),
            broken_by=broken_by,
            labels=np.array(labels, dtype=np.int64),
            predictions=np.array(predictions, dtype=np.int64),
            robust_to=np.array(robust_to, dtype=np.int64),
            broken_from=np.array(broken_from, dtype=np.int64),
            findings=described.get("findings", ()),
        )

    def description(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for line, comment in enumerate(self.described, 1):
            self.line = line
            name, colon, value = comment.removeprefix("#").partition(":")
            name, value = name.strip(), value.strip()
            if not colon or name not in _DESCRIBED or name in found:
                why = "stands there twice" if name in found else f"is unknown; {suggestion(name, _DESCRIBED)}"
                raise self.wrong(f"a description reads '# norm: linf'; {name!r} {why}")
            found[name] = self.described_value(name, value)
        if "norm" not in found:
            raise self.wrong(f"the norm is missing; the first line may be '# norm: linf' (valid: {', '.join(NORMS)})")
        return found

    def described_value(self, name: str, value: str) -> Any:
        if name == "norm" and value not in NORMS:
            raise self.wrong(f"unknown norm {value!r}; {suggestion(value, NORMS)}")
        if name == "epsilons":
            return tuple(self.epsilon(each) for each in value.split(","))
        if name in {"seed", "whole"}:
            return self.whole(name, value)
        if name in _LISTS:
            try:
                names = json.loads(value)
            except json.JSONDecodeError:
                names = None
            if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
                raise self.wrong(f'{name} are a JSON list of names, such as ["cat", "dog"]; got {value}')
            return tuple(names)
        if name == "findings":
            return self.findings(value)
        return value

    def findings(self, text: str) -> tuple[Finding, ...]:
        try:
            return tuple(Finding.from_dict(found) for found in json.loads(text))
        except (ValueError, TypeError) as error:
            raise self.wrong(f"findings are a JSON list as poise writes it; {' '.join(str(error).split())}") from None

    def check_names(self, names: Sequence[str]) -> None:
        missing = [name for name in _NEEDED if name not in names]
        if missing:
            raise self.wrong(f"a header with {', '.join(_NEEDED)} is needed; {', '.join(missing)} is missing")
        twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
        if twice is not None:
            raise self.wrong(f"the column {twice!r} stands there twice")

    def grid(self, names: Sequence[str], described: Mapping[str, Any]) -> tuple[float, ...]:
        others = [name for name in names if name not in _COLUMNS]
        if "broken_from" in names:
            if others:
                raise self.wrong(f"unknown column {others[0]!r}; {suggestion(others[0], _COLUMNS)}")
            if "epsilons" not in described:
                raise self.wrong("broken_from needs the grid in a line above, such as '# epsilons: 0, 4/255, 8/255'")
            grid: tuple[float, ...] = described["epsilons"]
        elif "robust_to" in names:
            raise self.wrong("robust_to says nothing without the column broken_from")
        else:
            grid = (0.0, *(self.epsilon(name) for name in others))
            if described.get("epsilons", grid) != grid:
                raise self.wrong("the columns named by epsilons are not those of '# epsilons'")
        if grid[0] != 0 or list(grid) != sorted(set(grid)):
            raise self.wrong(f"epsilons rise from 0; got {', '.join(str(Epsilon(point)) for point in grid)}")
        return grid

    def row(self, cells: Mapping[str, str], grid: tuple[float, ...]) -> _Row:
        label, prediction = self.whole("label", cells["label"]), self.whole("prediction", cells["prediction"])
        if self.classes and max(label, prediction) >= len(self.classes):
            raise self.wrong(f"classes go from 0 to {len(self.classes) - 1}; got {max(label, prediction)}")
        if not cells["id"]:
            raise self.wrong("the id is empty")
        margin = self.number("margin", cells["margin"]) if cells.get("margin") else float("nan")
        robust_to, broken_from = self.bracket(cells, grid, label == prediction)
        no_number = bool(cells.get("margin")) and np.isnan(margin)
        if (broken_from == 0) != (prediction != label) and not (broken_from == 0 and no_number):
            raise self.wrong(f"prediction {prediction} of label {label} contradicts broken_from {cells['broken_from']}")
        if robust_to >= broken_from:
            raise self.wrong(
                "robust beyond an epsilon at which it is broken: an adversarial image at one epsilon is one at every "
                "larger epsilon too"
            )
        default = "clean" if broken_from == 0 else "unknown" if broken_from < len(grid) else ""
        broken_by = cells.get("broken_by", default)
        if (broken_by != "") != (broken_from < len(grid)):
            raise self.wrong(f"broken_by {broken_by!r} contradicts the verdict")
        return _Row(cells["id"], label, prediction, margin, robust_to, broken_from, broken_by)

    def bracket(self, cells: Mapping[str, str], grid: tuple[float, ...], right: bool) -> tuple[int, int]:
        """Indices of the largest grid point that was withstood and the smallest that was not."""
        if "broken_from" in cells:
            broken_from = self.point(cells["broken_from"], grid) if cells["broken_from"] else len(grid)
            if "robust_to" not in cells:
                return broken_from - 1, broken_from
            if not cells["robust_to"] and broken_from > 0:
                raise self.wrong("robust_to is missing; it may be empty only where the clean image is wrong")
            return (self.point(cells["robust_to"], grid) if cells["robust_to"] else -1), broken_from
        said = [cell for name, cell in cells.items() if name not in _COLUMNS]
        for cell in said:
            if cell not in {"0", "1", ""}:
                raise self.wrong(f"a verdict is 1 for withstood, 0 for broken, or nothing for open; got {cell!r}")
        held = [point for point, cell in enumerate(said, 1) if cell == "1"]
        if not right:
            return max(held, default=-1), 0
        return max(held, default=0), next((point for point, cell in enumerate(said, 1) if cell == "0"), len(grid))

    def point(self, text: str, grid: tuple[float, ...]) -> int:
        epsilon = self.epsilon(text)
        if epsilon not in grid:
            raise self.wrong(f"{text} is not on the grid: {', '.join(str(Epsilon(point)) for point in grid)}")
        return grid.index(epsilon)


def _header(described: Mapping[str, Any], grid: tuple[float, ...]) -> Header:
    return Header(
        norm=described["norm"],
        epsilons=grid,
        seed=described.get("seed", 0),
        whole=described.get("whole"),
        **{name: described.get(name, ()) for name in _LISTS},
        versions={},
        **{name: described.get(name, "") for name in _PLAIN},
    )
