"""The main job from end to end, on the images that ship with scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from poise.attacks.suites import SUITES
from poise.commands.compare import compare
from poise.commands.finetune import finetune
from poise.commands.found_again import folder_of, marked, run_in
from poise.commands.mix import mix
from poise.commands.profile import profile
from poise.commands.report import report
from poise.commands.run import Run
from poise.commands.telling.terminal import say
from poise.commands.update import update
from poise.commands.updating.regression import flip_figures
from poise.commands.updating.trials import Trial, print_trials
from poise.core.files import digest_words, write_text
from poise.core.misuse import check_choice
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

UPDATE_RATE = 5e-3
"""Of 1e-3 and 5e-3 the one that lost no validation accuracy, when today's model had 25 epochs; flips were equal."""

TOLERANCE = 0.02
"""Three of the 185 validation images."""

ALPHAS, LOSE = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0], 2.0
"""Weights of the robust branch that are tried, and the points of robust accuracy on validation images that a mixture
may give up; 1 is the robust branch alone, so that there always is one that gives up nothing."""

_REPORT = "report.html"

GATE = f"""\
# What a model may lose in yesterday's place: poise compare fixed today --gate gate.yaml
limits:
  - {{figure: clean_flips, at_most: 5 %}}
  - {{figure: robust_flips, at: {THREAT.epsilon}, at_most: 10 %}}
  - {{figure: robust_accuracy_change, at: {THREAT.epsilon}, at_least: -2 %, by: estimate}}
"""


def quickstart(
    *,
    seed: int = 0,
    out: Path = Path("runs/quickstart"),
    epochs: int = 30,
    limit: int | None = None,
    suite: Suite = "apgd",
) -> list[Run]:
    """Train a standard network on handwritten digits, make it robust, replace it without regression, and mix.

    First chapter: the standard network stands for the pretrained model. It is fine-tuned at a fixed epsilon and with
    the hinge schedule, under the same options otherwise. Second chapter: the fixed one is yesterday's model; today's is
    trained from scratch, half as long again. What yesterday's model did right and today's would lose in its place is
    counted, and counted again after a congruent update, and a gate says of both whether they may go out. Third chapter:
    the updated model is mixed with the standard one. A report is written beside the runs.

    Args:
        seed: decides everything random.
        out: folder to create for the runs and the report, with a number behind it where that exists. One that the same
            command began and did not end is resumed.
        epochs: length of each training; today's model gets half as many again, the update a third.
        limit: use this many images of each split, the same ones every time.
        suite: the attacks that all are judged by: autoattack, apgd, pgd or fast.

    Returns:
        The runs: standard, fixed, scheduled, today, updated, mixed.
    """
    check_choice("suite", suite, SUITES)
    mark = digest_words([str(seed), str(epochs), str(limit), suite])
    folder = on_main(lambda: marked(folder_of(out, mark, lambda at: (at / _REPORT).is_file()), mark))
    if any(folder.glob("*/recipe.yaml")):
        say(f"{folder}: going on where it was interrupted")
    options = Training(epochs=epochs, batch_size=64, learning_rate=LEARNING_RATE)
    with threads(1):
        standard, yesterday, scheduled = _made_robust(folder, options, limit, seed)
        today, updated = _replaced(folder, yesterday, options, limit, seed)
        mixed = _mixed(folder, standard, updated, seed)
        runs = [standard, yesterday, scheduled, today, updated, mixed]
        for run in runs:
            if not run.folder.profile.is_file():
                profile(run.address, suite=suite, seed=seed)
        on_main(partial(_compare, folder, yesterday, [today, updated]))
        title = "poise quickstart: handwritten digits"
        report([str(run.path) for run in runs], out=folder / _REPORT, title=title)
    return runs


def _made_robust(folder: Path, options: Training, limit: int | None, seed: int) -> list[Run]:
    """The first chapter: a standard network, and two robust ones made from it."""
    common = partial(
        run_in, finetune, data="digits", threat=THREAT, training=options, augmentation="none", limit=limit, seed=seed
    )
    standard = common("small", objective=Standard(), schedule=Fixed(), out=folder / "standard")
    robust = (("fixed", Fixed()), ("scheduled", Hinge()))
    return [standard, *(common(standard.address, schedule=schedule, out=folder / name) for name, schedule in robust)]


def _replaced(folder: Path, yesterday: Run, options: Training, limit: int | None, seed: int) -> list[Run]:
    """The second chapter: a better model, and its congruent update from yesterday's."""
    today = run_in(
        finetune,
        "small",
        "digits",
        threat=THREAT,
        schedule=Fixed(),
        training=replace(options, epochs=max(1, 3 * options.epochs // 2)),
        augmentation="none",
        limit=limit,
        out=folder / "today",
        seed=seed + 1,
    )
    updated = run_in(
        update,
        yesterday.address,
        today.address,
        "digits",
        grid=[],
        tolerance=TOLERANCE,
        training=replace(options, epochs=max(1, options.epochs // 3), learning_rate=UPDATE_RATE),
        augmentation="none",
        out=folder / "updated",
        seed=seed,
    )
    return [today, updated]


def _mixed(folder: Path, standard: Run, robust: Run, seed: int) -> Run:
    """The third chapter: accuracy of the standard network, robustness of the robust one."""
    return run_in(
        mix,
        standard.address,
        robust.address,
        "digits",
        alphas=ALPHAS,
        lose=LOSE,
        calibrate=True,
        out=folder / "mixed",
        seed=seed,
    )


def _compare(folder: Path, yesterday: Run, candidates: list[Run]) -> None:
    """What each candidate would lose in yesterday's place, on the test images, and whether the gate lets it pass."""
    write_text(folder / "gate.yaml", GATE)
    for run in candidates:
        where = folder / f"{run.path.name}-for-{yesterday.path.name}"
        compare(str(yesterday.path), str(run.path), gate=folder / "gate.yaml", out=where)
    before = yesterday.profile()
    rows = [Trial(run.path.name, flip_figures(before, run.profile())) for run in candidates]
    print_trials(rows, f"in place of {yesterday.path.name}: {len(before)} test images, {THREAT}, in %")
