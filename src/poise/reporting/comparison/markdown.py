"""A comparison for a pull request."""

from __future__ import annotations

from poise.evaluation.comparison import Comparison
from poise.reporting.comparison.rows import Rows, change_rows, class_rows, flip_rows, gate_rows, outcome_rows
from poise.reporting.comparison.sentences import headline, summary
from poise.reporting.markdown import plain

_LISTED = 50


def comparison_markdown(comparison: Comparison) -> str:
    """A comparison as Markdown: the gate's verdict first, then what is lost and gained, with details folded up."""
    judgement = comparison.judgement
    blocks = [f"### {plain(comparison.old)} → {plain(comparison.new)}"]
    if judgement is not None:
        blocks += [
            f"**{plain(headline(judgement))}**",
            _table(gate_rows(judgement.verdicts)),
            plain(judgement.gate.promise),
        ]
    blocks += [plain(sentence) for sentence in summary(comparison)]
    if comparison.pair is not None:
        blocks += [plain(note) for note in comparison.pair.notes]
        blocks += [_table(flip_rows(comparison)), plain(flip_rows(comparison).note)]
        blocks += [_folded(outcome_rows(comparison)), _folded(class_rows(comparison))]
        lost = tuple(change for change in comparison.changes if change.kind == "lost")
        if lost:
            blocks.append(_folded(change_rows(lost), f"Lost images ({len(lost)})", _LISTED))
    return "\n\n".join(blocks) + "\n"


def _folded(rows: Rows, title: str = "", most: int | None = None) -> str:
    rest = len(rows.rows) - most if most is not None else 0
    more = f"\n\n{rest} more." if rest > 0 else ""
    return f"<details><summary>{title or rows.title}</summary>\n\n{_table(rows, most)}{more}\n\n</details>"


def _table(rows: Rows, most: int | None = None) -> str:
    figures = any(letter.isdigit() for letter in rows.rows[0][1][:1]) if rows.rows else False
    lines = [rows.headings, [":--", *("--:" if figures else ":--" for _ in rows.headings[1:])]]
    lines += [[plain(cell) for cell in row] for row in rows.rows[:most]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
