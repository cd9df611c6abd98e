"""Verdicts on models: profiles, and the arithmetic that turns them into curves and numbers.

It knows classifiers, images and attacks, and neither training nor how results are shown. Start with `profile`, the one
artefact of evidence; `judge` makes one (`brackets` says what it tries next), `profile_file` keeps it, `curve` reads it,
and `certificates` adds what is proven.
"""

from poise.attacks.suites import Suite
from poise.evaluation.brackets import Mode
from poise.evaluation.certificates.certificate import Certificate, Method
from poise.evaluation.curve import Curve, Estimate, accuracy_curve, certified_curve, expected_robustness, share
from poise.evaluation.grid import epsilon_grid
from poise.evaluation.journal import remove_journals
from poise.evaluation.judge import Examination, examine
from poise.evaluation.profile import Header, Profile
from poise.evaluation.profile_file import read_profile, write_profile
from poise.evaluation.soundness.finding import Finding, blocked

__all__ = [
    "Certificate",
    "Curve",
    "Estimate",
    "Examination",
    "Finding",
    "Header",
    "Method",
    "Mode",
    "Profile",
    "Suite",
    "accuracy_curve",
    "blocked",
    "certified_curve",
    "epsilon_grid",
    "examine",
    "expected_robustness",
    "read_profile",
    "remove_journals",
    "share",
    "write_profile",
]
