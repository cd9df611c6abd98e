"""Verdicts on models: profiles, and the arithmetic that turns them into curves and numbers.

It knows classifiers, images and attacks, and neither training nor how results are shown. Start with `profile`, the one
artefact of evidence; `judge` makes one (`brackets` says what it tries next), `profile_file` keeps it, `curve` reads it,
`certificates` adds what is proven, `flips` reads two, and `gate` decides on them.
"""

from poise.attacks.suites import Suite
from poise.evaluation.adversarials import Adversarials, adversarials_path, read_adversarials
from poise.evaluation.brackets import Mode
from poise.evaluation.certificates.certificate import Certificate, Method
from poise.evaluation.curve import Curve, Estimate, accuracy_curve, certified_curve, expected_robustness, share
from poise.evaluation.grid import epsilon_grid
from poise.evaluation.joining import join_adversarials, join_profiles
from poise.evaluation.journal import remove_journals
from poise.evaluation.judge import Examination, examine
from poise.evaluation.kept import Kept
from poise.evaluation.parts import Part
from poise.evaluation.profile import Header, Profile
from poise.evaluation.profile_csv import read_profile_csv, write_profile_csv
from poise.evaluation.profile_file import check_profile_name, profile_of, read_profile, write_profile
from poise.evaluation.soundness.catalogue import inspect_model, inspect_profile
from poise.evaluation.soundness.finding import Finding, blocked

__all__ = [
    "Adversarials",
    "Certificate",
    "Curve",
    "Estimate",
    "Examination",
    "Finding",
    "Header",
    "Kept",
    "Method",
    "Mode",
    "Part",
    "Profile",
    "Suite",
    "accuracy_curve",
    "adversarials_path",
    "blocked",
    "certified_curve",
    "check_profile_name",
    "epsilon_grid",
    "examine",
    "expected_robustness",
    "inspect_model",
    "inspect_profile",
    "join_adversarials",
    "join_profiles",
    "profile_of",
    "read_adversarials",
    "read_profile",
    "read_profile_csv",
    "remove_journals",
    "share",
    "write_profile",
    "write_profile_csv",
]
