"""The training loop, its options and its state on disk: one loop for every objective and schedule.

It holds no verdicts: how good the model is, a callback says that a command plugs in. Start with `trainer`, whose
`_Loop` reads top-down; `checkpoint` explains why a killed run goes on as if nothing had happened.
"""

from poise.training.options import Training
from poise.training.trainer import Diverged, Task, Validate, check_task, train

__all__ = ["Diverged", "Task", "Training", "Validate", "check_task", "train"]
