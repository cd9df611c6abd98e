"""What a person sees of a run: tables for the terminal and for a README, the model card, the report.

It reads run folders and profiles and knows neither models nor how they were trained; every number it shows is
arithmetic of `poise.evaluation`. Start with `subject`, one run in a report; `summary` holds its figures, `conditions`
says which of them may stand side by side, `chart` what is drawn, `html` puts the page together,
`pull_request` and `record` say the same in Markdown and JSON.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from poise.reporting.card import model_card
from poise.reporting.markdown import markdown_table
from poise.reporting.subject import Subject, read_subject
from poise.reporting.summary import SummaryRow, summary_rows

if TYPE_CHECKING:
    from poise.reporting.html import write_report
    from poise.reporting.pull_request import report_markdown
    from poise.reporting.record import report_record
    from poise.reporting.table import print_table

__all__ = [
    "Subject",
    "SummaryRow",
    "markdown_table",
    "model_card",
    "print_table",
    "read_subject",
    "report_markdown",
    "report_record",
    "summary_rows",
    "write_report",
]

_LAZY = {
    "print_table": "poise.reporting.table",
    "report_markdown": "poise.reporting.pull_request",
    "report_record": "poise.reporting.record",
    "write_report": "poise.reporting.html",
}


def __getattr__(name: str) -> Any:
    """Rich and plotly are imported when a table or a report is first asked for, and not before."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
