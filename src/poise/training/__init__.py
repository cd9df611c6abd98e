"""The training loop, its options and its state on disk: one loop for every objective and schedule.

It holds no verdicts: how good the model is, a callback says that a command plugs in. Start with `trainer`, whose
`_Loop` reads top-down; `timetable` says where a step stands, and `checkpoint` explains why a killed run goes on as if
nothing had happened.
"""

from poise.training.adaptation import Adaptation, Remark, Setting, adaptation, foreseen
from poise.training.attaching import attach
from poise.training.checkpoint import newest_checkpoint
from poise.training.divergence import Diverged
from poise.training.keeping import Keep, check_keep, kept
from poise.training.options import Training
from poise.training.processes import agree, is_main, on_main
from poise.training.task import Noted, Task, Validate, check_task
from poise.training.tracking import check_trackers
from poise.training.trainer import goes_on, train
from poise.training.transfer import Head, Last, LoRA, Probe, Transfer, Whole

__all__ = [
    "Adaptation",
    "Diverged",
    "Head",
    "Keep",
    "Last",
    "LoRA",
    "Noted",
    "Probe",
    "Remark",
    "Setting",
    "Task",
    "Training",
    "Transfer",
    "Validate",
    "Whole",
    "adaptation",
    "agree",
    "attach",
    "check_keep",
    "check_task",
    "check_trackers",
    "foreseen",
    "goes_on",
    "is_main",
    "kept",
    "newest_checkpoint",
    "on_main",
    "train",
]
