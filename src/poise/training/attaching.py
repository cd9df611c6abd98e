"""What is found out about a run after its training, sent to the trackers that followed the training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from poise.core.run_folder import RunFolder
from poise.training.options import Training
from poise.training.surroundings import accelerated
from poise.training.tracking import keep_file


def attach(
    folder: RunFolder, trackers: tuple[str, ...], *, file: Path, text: str = "", figures: Mapping[str, float]
) -> tuple[str, ...]:
    """Attach a file, and figures behind the last epoch, to the run that each tracker has for a run folder.

    TensorBoard, which knows no files, shows `text` in place of the file.

    Args:
        folder: the run.
        trackers: names of accelerate's trackers; none for nothing.
        file: what to attach.
        text: the file's content as Markdown.
        figures: numbers by name, none that is not finite.

    Returns:
        The trackers that hold the file itself.
    """
    if not trackers:
        return ()
    step, title = len(folder.history()), file.stem
    with accelerated(Training(), folder, trackers) as accelerator:
        if figures:
            accelerator.log(dict(figures), step=step)
        for tracker in accelerator.trackers:
            if text and tracker.name == "tensorboard":
                tracker.log({title: text}, step=step)
        name = f"{folder.path.resolve().name}-{file.name}"
        return tuple(each.name for each in accelerator.trackers if keep_file(each, file, name))
