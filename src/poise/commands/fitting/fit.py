"""What commands that train have in common: the folder that they begin or go on with, and the training itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from poise.commands.recipe import homeless, recipe_text, refuse_changes
from poise.commands.rehearsal.demand import EXAMINATION_UNKNOWN, TRAINING_UNKNOWN
from poise.commands.rehearsal.estimate import Work, rehearsed
from poise.commands.run import fresh_path
from poise.commands.telling.terminal import say, watching
from poise.core.files import write_text
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.models import Classifier, save_model
from poise.training import Noted, Task, Validate, on_main, train


def begun(
    verb: str,
    options: Mapping[str, object],
    out: Path | None,
    *,
    resume: bool,
    works: Callable[[], Iterable[Work]],
    ignored: tuple[str, ...] = (),
) -> RunFolder:
    """The run's folder with its recipe, the same in all processes: a new one, or the one to go on with.

    Args:
        verb: the command; without `out` its runs are named after it.
        options: all of the command's options, for the recipe.
        out: the folder asked for.
        resume: whether it is there already.
        works: what is to be done there, for a rehearsal, which ends here.
        ignored: options beside `out` that a resumed run may be given anew; its recipe then says so.

    Raises:
        Misuse: if a folder to create is there, and if one to resume is not or was started with other options.
    """
    return on_main(lambda: _begun(verb, options, _place(verb, options, out, resume=resume, ignored=ignored), works))


def _begun(
    verb: str, options: Mapping[str, object], folder: RunFolder, works: Callable[[], Iterable[Work]]
) -> RunFolder:
    options = {**options, "out": folder.path}
    rehearsed(verb, options, works, (*TRAINING_UNKNOWN, *EXAMINATION_UNKNOWN))
    text = recipe_text(verb, options)  # what no recipe can keep leaves no folder behind
    if not folder.recipe.exists():
        RunFolder.create(folder.path)
    write_text(folder.recipe, text)
    for kind in homeless(text):
        say(f"{kind} is defined in a script or a notebook: move it to a module, so that the recipe can be run again")
    return folder


def _place(
    verb: str, options: Mapping[str, object], out: Path | None, *, resume: bool, ignored: tuple[str, ...]
) -> RunFolder:
    """Where the run stands, or will stand."""
    if resume:
        if out is None:
            raise Misuse("say which run to resume, e.g. --config RUN/recipe.yaml --resume, or --out RUN --resume")
        folder = RunFolder.open(out)
        refuse_changes(folder, options, ignored=("out", *ignored))
        return folder
    return RunFolder.absent(out or fresh_path(Path("runs") / verb))


def fit(
    task: Task,
    folder: RunFolder,
    label: str,
    *,
    validate: Validate | None,
    trackers: tuple[str, ...],
    noted: Noted = lambda _: None,
) -> None:
    """Train, unless the folder holds the final weights already, and leave them there.

    Args:
        task: what to train; afterwards its classifier is on the CPU.
        folder: where the run stands.
        label: what a person is told is going on.
        validate: called after every epoch.
        trackers: names of accelerate's trackers.
        noted: told of every epoch's figures.
    """
    if on_main(folder.weights.exists):
        say(f"{folder.path} has ended already: there is nothing left to do")
        return
    trained(task, folder, label, validate=validate, trackers=trackers, noted=noted)
    on_main(lambda: save_model(task.classifier.cpu(), folder.path))


def trained(
    task: Task,
    folder: RunFolder,
    label: str,
    *,
    trackers: tuple[str, ...],
    validate: Validate | None = None,
    noted: Noted = lambda _: None,
) -> Classifier:
    """The task's classifier after its training, which goes on from the folder's newest checkpoint; see `fit`."""
    with watching(label) as watch:
        train(task, folder, validate=validate, watch=watch, tell=say, noted=noted, trackers=trackers)
    return task.classifier


def seconds(folder: RunFolder) -> float:
    """How long the epochs of a run took."""
    return sum(float(row["seconds"]) for row in folder.history())
