"""The verbs of the command line: what each does in a line, and how its words are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Verb:
    """A command.

    Args:
        summary: what it does, in a line.
        example: a call that works.
        positional: the option that words without a name belong to, or the options that such words name in turn.
        many: whether several such words are allowed for one option.
        long: whether it does long work, which a dry run estimates.
        meant: the option whose run says what a threat is of which the words name a part, such as epsilon alone.
        going_on: how a person goes on with one that was interrupted; empty where it begins anew.

    The command ends with the `exit_code` of what its function returns, where that has one, and else with 0.
    """

    summary: str
    example: str
    positional: str | tuple[str, ...] | None = None
    many: bool = False
    long: bool = False
    meant: str | None = None
    going_on: str = ""


_RESUMED = "a run that has begun goes on with --config RUN/recipe.yaml --resume"
_REPEATED = "the same command goes on from there"

VERBS = {
    "quickstart": Verb(
        "the main job from end to end, on handwritten digits",
        "poise quickstart",
        going_on=_REPEATED,
    ),
    "finetune": Verb(
        "make a pretrained classifier robust on your images",
        "poise finetune timm:resnet18 --weights resnet18.safetensors --data folder:photos --threat.epsilon 4/255",
        positional="model",
        long=True,
        going_on=_RESUMED,
    ),
    "tune": Verb(
        "search for the best options of a fine-tuning",
        "poise tune search.yaml --trials 50 --where 'clean >= 0.8'",
        positional="recipe",
        long=True,
        going_on=_REPEATED,
    ),
    "update": Verb(
        "replace a model by a better one without losing what the old one did right",
        "poise update --old run:runs/yesterday --new run:runs/today",
        long=True,
        meant="new",
        going_on=_RESUMED,
    ),
    "profile": Verb(
        "verdicts on every image over a grid of epsilons",
        "poise profile run:runs/finetune",
        positional="model",
        long=True,
        meant="model",
        going_on=_REPEATED,
    ),
    "merge": Verb(
        "profiles of parts of the data, joined into one",
        "poise merge part-1.parquet part-2.parquet --out profile.parquet",
        positional="profiles",
        many=True,
    ),
    "mix": Verb(
        "one classifier from an accurate and a robust one",
        "poise mix --standard run:runs/standard --robust run:runs/finetune --lose 1",
        long=True,
        meant="robust",
        going_on=_RESUMED,
    ),
    "certify": Verb(
        "a proven radius for every image: smoothing, or bounds of the network itself",
        "poise certify run:runs/finetune --sigma 0.25",
        positional="model",
        long=True,
        going_on=_REPEATED,
    ),
    "report": Verb(
        "runs beside each other: a table and a page", "poise report runs/a runs/b", positional="runs", many=True
    ),
    "export": Verb(
        "a model as a file for another runtime, with a model card", "poise export run:runs/finetune", positional="model"
    ),
    "demo": Verb(
        "a page to try and attack a model in the browser", "poise demo runs/mix", positional="model", meant="model"
    ),
    "compare": Verb(
        "what a new model loses and gains against the old one, and whether a release gate lets it pass",
        "poise compare runs/old runs/new --gate gate.yaml --out comparison",
        positional=("old", "new"),
    ),
    "doctor": Verb("versions, devices and speed, to paste into an issue", "poise doctor"),
    "completion": Verb(
        "a script with which bash, zsh or fish complete verbs and options",
        "poise completion bash > poise.bash",
        positional="shell",
    ),
}
"""By name, in the order in which people meet them; the function stands in the module of the same name."""


def function_of(name: str) -> Callable[..., Any]:
    """The function behind a verb; its module is imported for that.

    Args:
        name: one of `VERBS`.
    """
    function: Callable[..., Any] = getattr(import_module(f"poise.commands.{name}"), name)
    return function
