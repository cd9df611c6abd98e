"""The release gate: limits on figures of a comparison, and the verdict that a release keeps them.

It knows two joined profiles, the arithmetic of flips and which soundness checks there are, and neither how verdicts are
shown nor how a command ends. Start with `limit`, which says what can be asked, and `verdict`, which answers; `evidence`
states what a bound promises, `difference` and `mean` keep that promise for changes of accuracy and of expected
robustness.
"""

from poise.evaluation.gate.evidence import Bounded, Evidence, Share
from poise.evaluation.gate.figures import FIGURES, Figure, Group
from poise.evaluation.gate.gate_file import parse_gate, read_gate
from poise.evaluation.gate.limit import Gate, Limit
from poise.evaluation.gate.verdict import Judgement, Outcome, Verdict, judge, unjudged

__all__ = [
    "FIGURES",
    "Bounded",
    "Evidence",
    "Figure",
    "Gate",
    "Group",
    "Judgement",
    "Limit",
    "Outcome",
    "Share",
    "Verdict",
    "judge",
    "parse_gate",
    "read_gate",
    "unjudged",
]
