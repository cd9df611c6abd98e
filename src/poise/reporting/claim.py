"""A claim for RobustBench's leaderboards, from a profile: an entry of its model zoo as JSON, and the issue to open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from poise.core.misuse import Misuse
from poise.core.threat import Epsilon, Norm
from poise.evaluation import Profile, accuracy_curve, blocked

OPEN = "TO BE FILLED IN"
"""Stands where a person has to say something; no reader of RobustBench's JSON mistakes it for a value."""


@dataclass(frozen=True, kw_only=True)
class Board:
    """A leaderboard of RobustBench.

    Args:
        dataset: its name there.
        classes: classes of the data.
        images: test images that an evaluation takes.
        threat: name of the threat model there.
        norm: its norm.
        epsilon: its budget, as it is written there.
    """

    dataset: str
    classes: int
    images: int
    threat: str
    norm: Norm
    epsilon: str

    def __str__(self) -> str:
        return f"{self.dataset} {self.norm} {self.epsilon}"


BOARDS = (
    Board(dataset="cifar10", classes=10, images=10_000, threat="Linf", norm="linf", epsilon="8/255"),
    Board(dataset="cifar10", classes=10, images=10_000, threat="L2", norm="l2", epsilon="0.5"),
    Board(dataset="cifar100", classes=100, images=10_000, threat="Linf", norm="linf", epsilon="8/255"),
    Board(dataset="imagenet", classes=1000, images=5_000, threat="Linf", norm="linf", epsilon="4/255"),
)
"""The leaderboards of norm-bounded perturbations; those of common corruptions are measured in another way."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What only a person knows of an entry. Whatever is left out stands in the claim as still to be filled in.

    Args:
        title: of the paper.
        authors: all of them, separated by commas.
        link: address of the paper.
        venue: where and when it appeared, such as "arXiv, Feb 2024".
        architecture: such as WideResNet-28-10.
        additional_data: whether further images were trained on, pretraining included.
        reported: robust accuracy that the paper reports, in percent; by default the profile's.
        checkpoint: where weights and code can be fetched.
    """

    title: str | None = None
    authors: str | None = None
    link: str | None = None
    venue: str | None = None
    architecture: str | None = None
    additional_data: bool | None = None
    reported: float | None = None
    checkpoint: str | None = None


def board_of(profile: Profile) -> Board:
    """The leaderboard that a profile belongs to.

    Raises:
        Misuse: for another suite, norm, epsilon or data than a leaderboard's, for other images than its whole test set,
            for open verdicts, and for a profile that a soundness check objects to.
    """
    header, largest = profile.header, Epsilon(profile.epsilons[-1])
    if header.suite != "autoattack":
        raise Misuse(f"RobustBench's figures are AutoAttack's; this profile is of the suite {header.suite}")
    if objections := blocked(profile.findings):
        raise Misuse(f"soundness checks object to this profile: {', '.join(found.check for found in objections)}")
    dataset = _dataset(header.data_address)
    same = (board for board in BOARDS if (board.dataset, board.norm) == (dataset, header.norm))
    board = next((board for board in same if str(largest) == board.epsilon), None)
    if board is None or len(header.classes) != board.classes:
        raise Misuse(
            f"no leaderboard of RobustBench is on {header.data_address} ({len(header.classes)} classes) in "
            f"{header.norm} at {largest}; there are {', '.join(map(str, BOARDS))}"
        )
    if header.split != "test" and not (board.dataset == "imagenet" and header.split == "validation"):
        raise Misuse(f"a claim is about test images; this profile is of the split {header.split!r}")
    if len(profile) != board.images or profile.partial:
        raise Misuse(f"a claim on {board.dataset} is about {board.images} images; this profile has {len(profile)}")
    if profile.unsettled:
        raise Misuse(f"{profile.unsettled} images lack a verdict at some epsilon; finish the profile first")
    return board


def claim_record(profile: Profile, entry: Entry) -> dict[str, Any]:
    """A claim in the form of RobustBench's `model_info`, to be saved there as DATASET/THREAT/NameYearWord.json.

    Accuracies are the profile's, in percent with two decimals, as text. `number_forward_passes` is 1, or 2 for a
    mixture. A field that nobody has given says so.

    Raises:
        Misuse: see `board_of`.
    """
    board, curve = board_of(profile), accuracy_curve(profile)
    robust = _percent(curve.robust.value)
    return {
        "link": _given(entry.link),
        "name": _given(entry.title),
        "authors": _given(entry.authors),
        "additional_data": _given(entry.additional_data),
        "number_forward_passes": 2 if {"standard", "robust"} <= set(profile.header.surrogates) else 1,
        "dataset": board.dataset,
        "venue": _given(entry.venue),
        "architecture": _given(entry.architecture),
        "eps": board.epsilon,
        "clean_acc": _percent(curve.clean.value),
        "reported": robust if entry.reported is None else f"{entry.reported:.2f}",
        "autoattack_acc": robust,
        "unreliable": False,
    }


def claim_issue(profile: Profile, entry: Entry) -> str:
    """The same claim as the issue that RobustBench asks for, in Markdown; what is left to say stands out.

    Raises:
        Misuse: see `board_of`.
    """
    board, record, header = board_of(profile), claim_record(profile, entry), profile.header
    through = f", through {', '.join(header.surrogates)} as well" if header.surrogates else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(header.versions.items()))
    additional = record["additional_data"]
    sections = {
        "Paper Information": {
            "Paper Title": record["name"],
            "Paper URL": record["link"],
            "Paper authors": record["authors"],
        },
        "Leaderboard Claim(s)": {
            "Dataset": board.dataset,
            "Architecture": record["architecture"],
            "Threat Model": board.threat,
            "eps": board.epsilon,
            "Clean accuracy": f"{record['clean_acc']}%",
            "Robust accuracy": f"{record['autoattack_acc']}%",
            "Additional data": str(additional).lower() if isinstance(additional, bool) else additional,
            "Evaluation method": (
                f"{header.suite} on {len(profile)} images{through}, seed {header.seed}; {versions}; "
                f"model {header.model}, data {header.data}"
            ),
            "Checkpoint and code": _given(entry.checkpoint),
        },
    }
    parts = [
        "\n".join([f"# {title}", "", *(f"- **{name}**: {said}" for name, said in lines.items())])
        for title, lines in sections.items()
    ]
    return "\n\n".join(parts) + "\n"


def _dataset(address: str) -> str:
    """What RobustBench calls the data of an address such as torchvision:CIFAR10 or hf:ILSVRC/imagenet-1k."""
    words = re.sub(r"[^a-z0-9/]", "", address.lower().partition(":")[2].partition("?")[0])
    last = words.rstrip("/").rpartition("/")[2]
    return {"imagenet1k": "imagenet", "ilsvrc2012": "imagenet"}.get(last, last)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _given(value: str | bool | None) -> str | bool:
    return OPEN if value is None else value
