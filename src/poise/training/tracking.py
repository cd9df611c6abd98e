"""The trackers that accelerate knows, and the run of each that a run folder belongs to, whoever opens it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, filter_trackers
from accelerate.utils import LoggerType

from poise.core.files import write_text
from poise.core.misuse import Misuse, check_choice
from poise.core.run_folder import RunFolder

_PROJECT = "tracking"
"""What trackers call the project; also the folder of TensorBoard's files within a run folder."""

_NAMED: Mapping[str, Callable[[Any], str]] = {
    "mlflow": lambda run: str(run.info.run_id),
    "trackio": lambda run: str(run.name),
    "wandb": lambda run: str(run.id),
}
"""What a tracker's run is found again by."""

_AGAIN: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "mlflow": lambda name: {"run_id": name},
    "trackio": lambda name: {"name": name, "resume": "allow"},
    "wandb": lambda name: {"id": name, "resume": "allow"},
}
"""The options with which a tracker goes on with that run."""


def check_trackers(trackers: tuple[str, ...]) -> None:
    """Refuse what cannot be tracked with.

    Raises:
        Misuse: for trackers that accelerate does not know or that are not installed.
    """
    known = sorted(tracker.value for tracker in LoggerType if tracker is not LoggerType.ALL)
    for tracker in trackers:
        check_choice("tracker", tracker, known)
    if len(filter_trackers(list(trackers), logging_dir=".")) != len(trackers):
        raise Misuse(f"of the trackers {', '.join(trackers)} not all are installed")


def start_trackers(accelerator: Accelerator, folder: RunFolder) -> None:
    """Start an accelerator's trackers, each on the run that it had for this folder before, if any.

    Which one that was stands in the folder, so that a resumed training, a profile and a report reach the same run.
    """
    known = _known(folder)
    accelerator.init_trackers(
        _PROJECT, init_kwargs={tracker: _AGAIN[tracker](name) for tracker, name in known.items() if tracker in _AGAIN}
    )
    if not accelerator.is_main_process:
        return
    found = {each.name: _NAMED[each.name](each.tracker) for each in accelerator.trackers if each.name in _NAMED}
    if found.items() - known.items():
        write_text(_names(folder), json.dumps(known | found, indent=1, sort_keys=True) + "\n")


def keep_file(tracker: GeneralTracker, path: Path, name: str) -> bool:
    """Attach a file to a tracker's run, where the tracker has a notion of files: MLflow and Weights & Biases.

    Args:
        tracker: one that has been started.
        path: the file.
        name: what the file is called among those of all runs.

    Returns:
        Whether it was attached.
    """
    run: Any = tracker
    if tracker.name == "mlflow":
        run.log_artifact(str(path))
    elif tracker.name == "wandb":
        run.tracker.log_artifact(str(path), name=name, type=path.stem)
    else:
        return False
    return True


def _known(folder: RunFolder) -> dict[str, str]:
    path = _names(folder)
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _names(folder: RunFolder) -> Path:
    return folder.path / _PROJECT / "runs.json"
