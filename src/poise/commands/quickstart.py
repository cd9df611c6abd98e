"""The main job from end to end, on the images that ship with scikit-learn."""

from __future__ import annotations

from pathlib import Path

from poise.commands.finetune import finetune
from poise.commands.profile import profile
from poise.commands.report import report
from poise.commands.run import Run, fresh_path
from poise.core.modes import threads
from poise.core.threat import Threat
from poise.evaluation import Suite
from poise.objectives import Standard
from poise.schedules import Fixed, Hinge
from poise.training import Training, on_main

THREAT = Threat(norm="linf", epsilon="0.2")
"""A fifth of the grey range, at 8 x 8 pixels: large enough that a standard network holds almost nothing."""

LEARNING_RATE = 1e-2
"""The best of 2e-3, 5e-3 and 1e-2 by robust accuracy on the validation images, for both schedules alike."""


def quickstart(
    *, seed: int = 0, out: Path = Path("runs/quickstart"), epochs: int = 30, suite: Suite = "apgd"
) -> list[Run]:
    """Train a standard network on handwritten digits, make it robust in two ways, profile and compare the three.

    The standard network stands for the pretrained model. It is fine-tuned at a fixed epsilon and with the hinge
    schedule, under the same options otherwise. A report is written beside the runs.

    Args:
        seed: decides everything random.
        out: folder to create for the three runs and the report, with a number behind it where that exists.
        epochs: length of each training.
        suite: the attacks that the three are judged by: autoattack, apgd, pgd or fast.

    Returns:
        The runs: standard, fixed, scheduled.
    """
    with threads(1):
        folder = on_main(lambda: fresh_path(out))
        return _three_runs(folder, Training(epochs=epochs, batch_size=64, learning_rate=LEARNING_RATE), suite, seed)


def _three_runs(folder: Path, options: Training, suite: Suite, seed: int) -> list[Run]:
    standard = finetune(
        "small",
        "digits",
        threat=THREAT,
        objective=Standard(),
        schedule=Fixed(),
        training=options,
        augmentation="none",
        out=folder / "standard",
        seed=seed,
    )
    robust = [
        finetune(
            standard.address,
            "digits",
            threat=THREAT,
            schedule=schedule,
            training=options,
            augmentation="none",
            out=folder / name,
            seed=seed,
        )
        for name, schedule in (("fixed", Fixed()), ("scheduled", Hinge()))
    ]
    runs = [standard, *robust]
    for run in runs:
        profile(run.address, suite=suite, seed=seed)
    report([str(run.path) for run in runs], out=folder / "report.html", title="poise quickstart: handwritten digits")
    return runs
