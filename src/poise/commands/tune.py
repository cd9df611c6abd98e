"""Search for the best options of a fine-tuning, in one process or in many on one study."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from poise.attacks.suites import SUITES
from poise.commands.finetune import fine_tuned, prepared
from poise.commands.fitting.validation import Judging, validation
from poise.commands.found_again import folder_of, marked
from poise.commands.parsing import options_of
from poise.commands.recipe import options_among, plain, read_recipe, recipe_text
from poise.commands.rehearsal.demand import EXAMINATION_UNKNOWN, TRAINING_UNKNOWN
from poise.commands.rehearsal.estimate import Work, rehearsal_of, rehearsed
from poise.commands.searching.goals import Bound, figure_points, figures_of, read_bound
from poise.commands.searching.space import (
    Space,
    Span,
    Value,
    filled,
    fit_for,
    samples_of,
    space_of,
    suggested,
    with_default_space,
)
from poise.commands.searching.studies import Study, ended, open_study
from poise.commands.searching.trial import Standing, Trial
from poise.commands.telling.terminal import say
from poise.core.files import digest_words, write_text
from poise.core.misuse import Failure, Misuse, check_choice
from poise.core.processes import process_state
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.data import ImageSet
from poise.evaluation import Examination, Suite, examine
from poise.models import Classifier
from poise.reporting.tried import best_of
from poise.schedules import Schedule
from poise.training import Task, kept

_UNKNOWN = (
    "which trials will be stopped early, or tried again: all are counted whole",
    "options that change the cost: each trial is counted with the first value of every range that goes with the others",
)


def tune(
    recipe: Path | str,
    *,
    trials: int = 30,
    maximise: str = "expected",
    where: list[str] | str | None = None,
    suite: Suite = "fast",
    prune_after: float = 0.5,
    storage: str | None = None,
    out: Path | str | None = None,
    seed: int = 0,
) -> Path:
    """Search for the options with which fine-tuning gives the most robust model; write the best as a recipe.

    Every trial is a fine-tuning, judged on its validation images after every epoch; test images are never looked at. A
    trial is stopped where, after the same epoch and at the same epsilon, it is below the middle of at least four that
    were finished within the bounds; so one whose schedule ramps later is not measured by those that ramped before, and
    none is stopped after its last epoch. Start the same command again to go on, or several times at once to share the
    work: killed trials are taken up where they stood, once nothing was heard of them for three minutes.

    Args:
        recipe: a recipe of poise finetune in which options may stand as ranges, {from: 1e-4, to: 1e-2, log: true} or
            {among: [adamw, sgd]}; where none does, learning rate, weight decay and the hinge's start and stop are
            searched.
        trials: how many fine-tunings the study holds in the end, stopped ones included.
        maximise: expected (robustness over the whole range of epsilon), clean, robust, or robust@EPSILON.
        where: bounds that the best must keep, such as "clean >= 0.8".
        suite: the attacks of the judgements.
        prune_after: share of its epochs up to which no trial is stopped; 1 stops none.
        storage: where the study is kept: a file, or the URL of a database that several machines reach; by default a
            file in the folder.
        out: folder of the study, created or resumed; by default the newest of runs/tune, runs/tune-2, ... that the
            same command began and has not ended, else a new one.
        seed: decides what is tried.

    Returns:
        The best recipe, runnable by poise finetune --config.

    Raises:
        Misuse: for anything that cannot be done, before any trial.
        Failure: if no trial kept to the bounds.
    """
    options = options_among(locals(), tune)
    check_choice("suite", suite, SUITES)
    search = _Search.read(Path(recipe), maximise, where, suite)
    _check(trials, prune_after)
    rehearsed("tune", options, lambda: search.works(trials), (*_UNKNOWN, *TRAINING_UNKNOWN, *EXAMINATION_UNKNOWN))
    search.suitable()
    mark = digest_words([search.identity, storage or "", str(seed)])

    def over(at: Path) -> bool:
        return not storage and ended(at / "study.db", trials)

    folder = Path(out) if out else folder_of(Path("runs/tune"), mark, over)
    place = storage or str(marked(folder, mark) / "study.db")
    with open_study(place, identity=search.identity, prune_after=prune_after, seed=seed) as study:
        marked(folder, mark)
        if done := len(study.history()):
            say(f"{folder}: going on after {done} of {trials} trials")
        study.run(
            lambda trial: search.attempt(trial, _place(folder, trial.origin)),
            trials,
            lambda: search.keep(study, folder),
        )
        return search.conclude(study, folder)


@dataclass(frozen=True, kw_only=True)
class _Search:
    """What is tried, and what for."""

    tree: Mapping[str, Any]
    space: Space
    maximise: str
    bounds: tuple[Bound, ...]
    suite: Suite
    points: tuple[float, ...]

    @classmethod
    def read(cls, recipe: Path, maximise: str, where: list[str] | str | None, suite: Suite) -> _Search:
        """Everything checked that can be checked before the first trial."""
        tree = with_default_space(read_recipe(recipe))
        tree = {name: value for name, value in tree.items() if name not in {"out", "resume"}}
        space = space_of(tree)
        bounds = tuple(read_bound(text) for text in ([where] if isinstance(where, str) else where or []))
        options = options_of("finetune", _possible(tree, samples_of(space)[0], space))
        space = fit_for(space, options)
        if not options["validate_on"]:
            raise Misuse("a search judges on validation images; give the recipe a validate_on above 0")
        names = (maximise, *(bound.figure for bound in bounds))
        points = figure_points(names, options["threat"])
        return cls(tree=tree, space=space, maximise=maximise, bounds=bounds, suite=suite, points=points)

    @property
    def identity(self) -> str:
        """A digest of what makes the trials of one study comparable."""
        asked = {"maximise": self.maximise, "where": [str(bound) for bound in self.bounds], "suite": self.suite}
        return digest_words([json.dumps(plain({"recipe": self.tree, **asked}), sort_keys=True)])

    @property
    def names(self) -> tuple[str, ...]:
        """Figures that are measured after every epoch."""
        return (self.maximise, *(bound.figure for bound in self.bounds))

    def suitable(self) -> Mapping[str, Any]:
        """Options of a trial that could be tried, with everything opened and checked that a fine-tuning looks at.

        Raises:
            Misuse: what the first sample is refused for, where all are refused.
        """
        refused = []
        for values in samples_of(self.space):
            try:
                options = options_of("finetune", _possible(self.tree, values, self.space))
                return prepared(options, measuring=self.measuring).options
            except Misuse as error:
                refused.append(error)
        raise refused[0]

    def attempt(self, trial: Trial, folder: Path) -> None:
        """One fine-tuning, from its options to its figure."""
        values = suggested(self.space, trial.number, trial.whole, trial.among)
        try:
            options = options_of("finetune", filled(self.tree, {**values, "out": folder.as_posix()}))
            ready = prepared({**options, "out": folder}, measuring=self.measuring)
        except Misuse as error:  # its options do not go together, or not with the network
            self.suitable()  # unless all are refused by now
            trial.give_up(str(error))
            return

        run = RunFolder(folder)
        rows = run.history()  # of a trial that is taken up
        if trial.again:
            trial.recall([self.standing(rows[: done + 1], ready.task) for done in range(len(rows))])

        def noted(row: Mapping[str, float]) -> None:
            rows[int(row["epoch"]) :] = [dict(row)]
            trial.report(self.standing(rows, ready.task))

        try:
            fine_tuned(ready, resume=run.recipe.is_file(), noted=noted)
        except Failure as error:
            trial.give_up(str(error))

    def standing(self, rows: Sequence[Mapping[str, float]], task: Task) -> Standing:
        """What a history says of a trial: its figures are those of the weights that it would end with now."""
        last, final = rows[-1], kept(rows, task.keep, attacked=task.attacked)
        figures = {name: final[f"validation/{name}"] for name in self.names}
        return Standing(
            epoch=int(last["epoch"]),
            done=(last["epoch"] + 1) / task.options.epochs,
            epsilon=last["epsilon"],
            value=figures[self.maximise],
            figures=figures,
            violations={str(bound): bound.excess(figures) for bound in self.bounds},
        )

    def measuring(self, images: ImageSet, threat: Threat, count: int, schedule: Schedule, seed: int) -> Judging | None:
        """A validation that measures the search's figures with its suite."""
        usual = validation(images, threat, count, schedule, seed)
        if usual is None or (self.suite == "fast" and set(self.names) <= {"clean", "robust"}):
            return usual
        examination = Examination(threat=threat, suite=self.suite, points=self.points, seed=seed)
        return _Judging(usual if schedule.hears else None, usual.images, examination, self.names)

    def works(self, trials: int) -> list[Work]:
        """What the trials cost, were none of them stopped: each like the first that can be tried."""
        options = self.suitable()
        one = rehearsal_of(lambda: fine_tuned(prepared(options, measuring=self.measuring)))
        return [work * trials for work in one.works]

    def keep(self, study: Study, folder: Path) -> None:
        """Write the best recipe so far and the page, and free the space of trials that are not the best."""
        from poise.reporting.search_page import write_search_page  # noqa: PLC0415 - plotly is slow to import

        tried = study.history()
        best = best_of(tried)
        logarithmic = tuple(path for path, kind in self.space.items() if isinstance(kind, Span) and kind.log)
        write_search_page(tried, folder / "search.html", figure=self.maximise, logarithmic=logarithmic)
        if best is not None:
            write_text(folder / "best.yaml", recipe_text("finetune", filled(self.tree, best.values)))
        for each in tried:
            if best is None or each.number != best.number:
                lost = RunFolder(_place(folder, each.number))
                shutil.rmtree(lost.checkpoints, ignore_errors=True)
                lost.weights.unlink(missing_ok=True)

    def conclude(self, study: Study, folder: Path) -> Path:
        """Say what was found, and where its recipe is."""
        self.keep(study, folder)
        tried = study.history()
        best = best_of(tried)
        page, target = folder / "search.html", folder / "best.yaml"
        working = study.working
        elsewhere = f"; other processes are at {working} more, and will say what these come to" if working else ""
        if best is None:
            bounds = ", ".join(map(str, self.bounds)) or "none"
            advice = elsewhere or f"; see {page}, widen a range or a bound, and go on with more trials"
            raise Failure(f"none of {len(tried)} trials was finished within the bounds ({bounds}){advice}")
        say(f"{target}: {self.maximise} {best.value:.1%}, trial {best.number} of {len(tried)}{elsewhere}; see {page}")
        return target


@dataclass(frozen=True)
class _Judging:
    """The figures of a search, and beside them what a schedule wants to hear."""

    usual: Judging | None
    images: ImageSet
    examination: Examination
    names: tuple[str, ...]

    @property
    def examinations(self) -> tuple[Examination, ...]:
        """See `Judging.examinations`."""
        return (*(self.usual.examinations if self.usual else ()), self.examination)

    def __call__(self, classifier: Classifier, epsilon: float) -> Mapping[str, float]:
        """See `poise.training.Validate`."""
        profile = examine(classifier, self.images, self.examination, model_address="in training")
        heard = self.usual(classifier, epsilon) if self.usual else {}
        return {**heard, **figures_of(profile, self.names)}


def _place(folder: Path, number: int) -> Path:
    """The folder of a trial."""
    return folder / "trials" / f"{number:05d}"


def _check(trials: int, prune_after: float) -> None:
    if find_spec("optuna") is None:
        raise Misuse("poise tune needs optuna; install it with: pip install 'poise[tune]'")
    if trials < 1:
        raise Misuse(f"trials must be at least 1; got {trials}")
    if not 0 <= prune_after <= 1:
        raise Misuse(f"prune_after is a share of the epochs in [0, 1]; got {prune_after}")
    if process_state().num_processes > 1:
        raise Misuse("start poise tune itself several times on one storage; each of its trials runs in one process")


def _possible(tree: Mapping[str, Any], values: Mapping[str, Value], space: Space) -> dict[str, Any]:
    """The recipe with a sample's values; where a ramp stops, the highest, so that it can start at any."""
    ends = space["schedule.stop"].ends if "schedule.stop" in space else ()
    numbers = [end for end in ends if isinstance(end, int | float)]
    return filled(tree, {**values, "schedule.stop": max(numbers)} if numbers else values)
