"""What a training run measured, epoch by epoch: metrics.jsonl and the trackers that accelerate knows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from accelerate import Accelerator

from poise.core.files import write_text
from poise.core.run_folder import RunFolder


class Journal:
    """Appends one row an epoch; only the main process writes.

    Args:
        folder: the run.
        accelerator: tells which process is the main one and holds the trackers.
        epochs: rows to keep from an interrupted run; later ones will be measured again.
    """

    def __init__(self, folder: RunFolder, accelerator: Accelerator, epochs: int) -> None:
        self._folder = folder
        self._accelerator = accelerator
        if accelerator.is_main_process:
            kept = [row for row in folder.history() if row["epoch"] < epochs]
            write_text(folder.metrics, "".join(_line(row) for row in kept))

    def write(self, row: Mapping[str, float]) -> None:
        """Append an epoch's row; it must hold "epoch"."""
        if self._accelerator.is_main_process:
            with self._folder.metrics.open("a", encoding="utf-8") as handle:
                handle.write(_line(row))
        numbers = {name: value for name, value in row.items() if name != "epoch" and math.isfinite(value)}
        self._accelerator.log(numbers, step=int(row["epoch"]))


def _line(row: Mapping[str, float]) -> str:
    return json.dumps(dict(row)) + "\n"
