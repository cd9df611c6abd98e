"""A comparison as plain data, for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from poise.evaluation import Estimate, Profile
from poise.evaluation.comparison import Comparison
from poise.evaluation.flips import Count, Flips, Replay, rate
from poise.evaluation.gate import Verdict

FORMAT = 1
"""Grows when a field changes its meaning or goes away."""

_COUNTS = ("stays_right", "stays_wrong", "gained", "lost", "joint", "union", "old_right", "new_right")


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """A comparison as an object that JSON can hold: shares in [0, 1], epsilons in units of the image range.

    Counts are `certain` and `possible`, which differ while verdicts are open, of a `total`; `low` and `high` are the
    ends of the 95 % interval.
    """
    pair, judgement = comparison.pair, comparison.judgement
    record: dict[str, Any] = {"format": FORMAT, "old": {"name": comparison.old}, "new": {"name": comparison.new}}
    record["gate"] = (
        None
        if judgement is None
        else {
            "outcome": judgement.outcome,
            "exit_code": judgement.exit_code,
            "confidence": judgement.gate.confidence,
            "joint": judgement.gate.joint,
            "grid": judgement.gate.grid,
            "unchecked": judgement.gate.unchecked,
            "suites": list(judgement.gate.suites),
            "promise": judgement.gate.promise,
            "limits": [_verdict(verdict) for verdict in judgement.verdicts],
        }
    )
    if pair is None:
        return record | {"obstacle": comparison.obstacle}
    record["old"] |= _origin(pair.old)
    record["new"] |= _origin(pair.new)
    return record | {
        "examples": len(pair),
        "norm": pair.old.header.norm,
        "epsilons": list(pair.epsilons),
        "left_out": list(pair.left_out),
        "notes": list(pair.notes),
        "flips": [_flips(found) for found in comparison.flips],
        "accuracy_change": [_estimate(change) for change in comparison.accuracy_changes],
        "expected_robustness_change": _estimate(comparison.expected_change),
        "classes": {name: [_flips(found) for found in points] for name, points in comparison.by_class.items()},
        "noise": [
            {
                "of": floor.of,
                "seeds": list(floor.seeds),
                "rate": [_estimate(floor.rate(at)) for at in range(len(floor.flips))],
            }
            for floor in comparison.noise
        ],
        "replay": None if comparison.replayed is None else _replay(comparison.replayed),
        "changes": [
            {key: value for key, value in asdict(change).items() if key != "row"} for change in comparison.changes
        ],
    }


def _replay(found: Replay) -> dict[str, Any]:
    return {
        "images": len(found.ids),
        "transferred": _estimate(found.transferred),
        "fooled": [identity for identity, wrong in zip(found.ids, found.fooled.tolist(), strict=True) if wrong],
        "overlooked": list(found.overlooked),
    }


def _origin(profile: Profile) -> dict[str, Any]:
    header = profile.header
    kept = ("model", "model_address", "data", "data_address", "split", "suite", "seed")
    return {name: getattr(header, name) for name in kept} | {"findings": [each.to_dict() for each in profile.findings]}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "limit": str(verdict.limit),
        **{key: value for key, value in asdict(verdict.limit).items() if key != "at"},
        "at": verdict.limit.at if isinstance(verdict.limit.at, str | None) else float(verdict.limit.at),
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "measured": verdict.value,
        "bound": verdict.bound,
        "examples": verdict.examples,
        "where": verdict.where,
        "needed": verdict.needed,
    }


def _flips(found: Flips) -> dict[str, Any]:
    return {
        "epsilon": found.epsilon,
        **{name: _count(getattr(found, name)) for name in _COUNTS},
        "trust": None if found.trust is None else _count(found.trust),
        "relative": found.relative,
        "mcnemar": found.mcnemar,
    }


def _count(count: Count) -> dict[str, float]:
    found = rate(count)
    return {**count._asdict(), "low": found.low, "high": found.high}


def _estimate(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else estimate._asdict()
