"""Says, in the first of several processes, how long they wait for one another, in seconds."""

from __future__ import annotations

import sys

import torch
from torch.distributed import distributed_c10d

from poise.core.processes import process_state

if __name__ == "__main__":
    if process_state().is_main_process:
        backend = distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
        sys.stderr.write(f"{backend.options._timeout.total_seconds()}\n")
