"""Commands of poise in several processes, as a launcher starts them: on CPUs, talking through gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_LAUNCH = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--num_machines", "1"]
_LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "--num_processes"]


def launched(
    processes: int, words: list[str], folder: Path, module: str = "poise", *, way: str = "--multi_gpu"
) -> subprocess.Popen[str]:
    """Start `accelerate launch WAY -m MODULE WORDS` in a folder; --multi_gpu is what starts several, on CPUs too."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*_LAUNCH, str(processes), way, "-m", module, *words]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **streams)


def finished(process: subprocess.Popen[str]) -> str:
    """What it said on standard error; it must have ended well."""
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told[-3000:]
    return told
