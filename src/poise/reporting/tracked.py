"""A profile's figures under the names by which trackers know them."""

from __future__ import annotations

from poise.core.threat import Epsilon
from poise.evaluation import Profile, accuracy_curve, blocked
from poise.reporting.subject import Subject
from poise.reporting.summary import summary_rows


def tracked_figures(profile: Profile) -> dict[str, float]:
    """Clean and robust accuracy, expected robustness and the accuracy at every epsilon, as shares in [0, 1].

    Nothing where a soundness check objects to the profile.
    """
    if blocked(profile.findings):
        return {}
    (row,) = summary_rows([Subject("", profile, [], "", None)])
    shown = {"clean": row.clean, "robust": row.robust, "expected_robustness": row.expected}
    curve = accuracy_curve(profile)
    return {f"profile/{name}": estimate.value for name, estimate in shown.items() if estimate is not None} | {
        f"profile/accuracy_at/{Epsilon(epsilon)}": estimate.value
        for epsilon, estimate in zip(curve.epsilons, curve.accuracy, strict=True)
    }
