"""What every benchmark shares: its claims, the machine it ran on, and how its result is kept."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch

from poise.commands.profile import profile
from poise.core.misuse import Misuse
from poise.evaluation import Profile, read_profile
from poise.models import open_model

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SHORT = 3
"""Exit code of a benchmark whose figures fall short of a floor; any other but 0 means that it broke off."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where benchmarks of single parts compute; those that train leave it to poise."""


@dataclass(frozen=True)
class Claim:
    """A figure with the floor it must reach.

    Args:
        name: what is claimed.
        value: what was measured.
        floor: the least (or, with `most`, the most) that holds.
        most: whether the floor is a ceiling.
        interval: where the figure is an estimate, its 95 % interval.
    """

    name: str
    value: float
    floor: float
    most: bool = False
    interval: tuple[float, float] | None = None

    @property
    def holds(self) -> bool:
        """Whether the figure is on the right side of its floor."""
        return self.value <= self.floor if self.most else self.value >= self.floor

    def __str__(self) -> str:
        within = "" if self.interval is None else " [{:.3g}, {:.3g}]".format(*self.interval)
        floor = f"{'at most' if self.most else 'at least'} {self.floor:g}"
        return f"claim {self.name}: {self.value:.3g}{within} ({floor}) {'holds' if self.holds else 'falls short'}"


def machine() -> str:
    """A short name of the machine's kind, for file names: what computes, and how many of it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0).lower().replace(" ", "-")
    return f"{platform.machine()}-{os.cpu_count()}cpu"


def cpu() -> tuple[str, bool]:
    """The processor's name, and whether it computes in bf16: as Linux tells, else what Python knows, and no."""
    told = Path("/proc/cpuinfo")
    text = told.read_text(encoding="utf-8") if told.is_file() else ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    bf16 = not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(text.split())
    return named[1] if named else platform.processor() or platform.machine(), bf16


def profiled(address: str, data: str | None = None, *, out: Path, **options: Any) -> Profile:
    """The profile in this file, made by `poise profile` where it is not there yet, or taken up where it stopped.

    Raises:
        Misuse: where the profile that is there is of another model, or was made with other options.
    """
    if not out.is_file():
        profile(address, data, out=out, **options)
    found = read_profile(out)
    if differing := _differing(found, address, options):
        raise Misuse(f"{out} was made with another {differing}; take another folder, or delete it")
    return found


def objections(found: Profile) -> list[str]:
    """What the soundness checks say against the figures of a profile, without the names of images."""
    against = [finding for finding in found.findings if finding.status in {"warn", "block"}]
    return [str(replace(finding, evidence=finding.evidence.partition(": ")[0])) for finding in against]


def _differing(found: Profile, address: str, options: Mapping[str, Any]) -> str:
    """In what a profile is not the one that these options would make; "" for nothing."""
    header, limit, threat = found.header, options.get("limit"), options.get("threat")
    bare = options.get("points") == []
    same = {
        "model": header.model == open_model(address).digest(),
        "suite": header.suite == options.get("suite", "autoattack"),
        "seed": header.seed == options.get("seed", 0),
        "split": header.split == options.get("split", "test"),
        "grid": (len(header.epsilons) == 2) == bare,
        "threat": threat is None or (header.norm, header.epsilons[-1]) == (threat.norm, float(threat.epsilon)),
        "count of images": limit is None or len(found) == limit,
    }
    return next((name for name, holds in same.items() if not holds), "")


Scale = TypeVar("Scale")


@dataclass(frozen=True)
class Bench(Generic[Scale]):
    """One call of a benchmark that trains, at one of its scales.

    Args:
        scale: how much is done.
        name: of that scale.
        data: address of CIFAR-10.
        folder: where everything is kept.
    """

    scale: Scale
    name: str
    data: str
    folder: Path

    @classmethod
    def of(cls, options: argparse.Namespace, benchmark: str, scales: Mapping[str, Scale]) -> Self:
        """What a command line asks for (`bench_parser`).

        Args:
            options: the command line.
            benchmark: its name, for the folder.
            scales: by name.
        """
        name = "quick" if options.quick else options.scale
        return cls(scales[name], name, options.data, options.folder or Path(f"runs/{benchmark}-{name}"))


def bench_parser(document: str | None, scales: Collection[str]) -> argparse.ArgumentParser:
    """The command line of a benchmark that trains, to which it adds what is its own."""
    parser = argparse.ArgumentParser(description=(document or "").splitlines()[0])
    parser.add_argument("--scale", choices=scales, default="small")
    parser.add_argument("--quick", action="store_true", help="the same as --scale quick")
    parser.add_argument("--data", default="torchvision:CIFAR10", help="address of CIFAR-10")
    parser.add_argument("--folder", type=Path, help="where runs are kept; by default runs/BENCHMARK-SCALE")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the work, one thread each")
    return parser


@contextmanager
def workers(jobs: int) -> Iterator[Callable[..., list[Any]]]:
    """Processes that share work, one thread each: called like `map`, for a list in the order of its items.

    They end with the process that started them, whatever ended it.

    Args:
        jobs: how many.
    """
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawning, initializer=_begin) as pool:
        yield lambda work, *items: list(pool.map(work, *items))


def _begin() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def clock() -> float:
    """Seconds of processor time, which other work on the machine hardly lengthens; on CUDA of the clock."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds_of(work: Callable[[], object]) -> float:
    """What some work takes by `clock`."""
    start = clock()
    work()
    return clock() - start


def peak_above(work: Callable[[], object], device: str = "cpu") -> int:
    """Bytes by which memory peaks during some work above what is held before: this process's, or what is allocated.

    Args:
        work: what is weighed.
        device: "cuda", or "cpu" for the process's resident memory (Linux only).
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return int(torch.cuda.max_memory_allocated() - before)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    """What the kernel says of this process's memory, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"this kernel says nothing of {name}")
    return 1024 * int(found[1])


def conclude(name: str, claims: Sequence[Claim], figures: dict[str, Any], variant: str = "") -> int:
    """Keep the result, print a line a claim, and return the exit code: `SHORT` where one falls short.

    What was called with --quick is kept by itself, and never in the place of what was measured in full.

    Args:
        name: of the benchmark's module.
        claims: figures with their floors.
        figures: whatever else was measured.
        variant: sets results of the same benchmark apart, such as those of several scales.
    """
    RESULTS.mkdir(exist_ok=True)
    processor, bf16 = cpu()
    record = {
        "command": " ".join(["python -m benchmarks." + name, *sys.argv[1:]]),
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "kind": machine(),
            "processor": processor,
            "bf16": bf16,
            "threads": torch.get_num_threads(),
        },
        "versions": {"python": platform.python_version()} | _versions("poise", "torch", "pyautoattack"),
        "figures": figures,
        "claims": [asdict(claim) | {"holds": claim.holds} for claim in claims],
    }
    apart = [variant, "quick" if "--quick" in sys.argv and variant != "quick" else ""]
    path = RESULTS / f"{'-'.join([name, *filter(None, apart)])}.{machine()}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for claim in claims:
        print(claim)
    return 0 if all(claim.holds for claim in claims) else SHORT


def _versions(*packages: str) -> dict[str, str]:
    """Versions of those that are installed."""
    return {name: importlib.metadata.version(name) for name in packages if find_spec(name)}


def _commit() -> str:
    """The commit that was measured, with "+" where code differs from it; "" outside a clone.

    Other results, and pages about them, are no code: one benchmark after the other may write its own.
    """
    git = shutil.which("git")
    if git is None:
        return ""

    def asked(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([git, "-C", str(ROOT), *words], capture_output=True, text=True, check=False)

    head = asked("rev-parse", "--short=10", "HEAD")
    if head.returncode:
        return ""
    changed = asked("diff", "--quiet", "HEAD", "--", ".", ":(exclude)benchmarks/results", ":(exclude)docs").returncode
    return head.stdout.strip() + "+" * (changed != 0)
