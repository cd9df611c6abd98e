"""The training loop, its options and its state on disk: one loop for every objective and schedule.

It holds no verdicts: how good the model is, a callback says that a command plugs in. Start with `trainer`, whose
`_Loop` reads top-down; `checkpoint` explains why a killed run goes on as if nothing had happened.
"""

from poise.training.adaptation import Adaptation, Remark, Setting, adaptation
from poise.training.options import Training
from poise.training.trainer import Diverged, Noted, Task, Validate, check_task, train

__all__ = [
    "Adaptation",
    "Diverged",
    "Noted",
    "Remark",
    "Setting",
    "Task",
    "Training",
    "Validate",
    "adaptation",
    "check_task",
    "train",
]
