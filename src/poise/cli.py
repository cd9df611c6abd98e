"""The command line: verbs, their options derived from the verbs' own types, and what a person is told when it fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn, get_args, get_origin

from poise.core.misuse import Failure, Misuse, suggestion
from poise.core.threat import Epsilon

FAILED, REFUSED, INTERRUPTED = 1, 2, 130
"""Exit codes beside 0: work that could not go on, a request that cannot be honoured, Ctrl-C."""

EXIT_CODES = {
    0: "done; a gate passed",
    FAILED: "work began and could not go on, or an error of poise itself; a gate failed",
    REFUSED: "the request cannot be honoured, or a file not be read or written; a gate cannot be judged",
    INTERRUPTED: "interrupted by Ctrl-C; a profile goes on with the same command, a run with --resume",
}
"""What each exit code means."""


_DRY_RUN = "print the full recipe and what it would cost, by passes timed on this machine, and make nothing"


@dataclass(frozen=True)
class Verb:
    """A command.

    Args:
        summary: what it does, in a line.
        example: a call that works.
        positional: the option that words without a name belong to, or the options that such words name in turn.
        many: whether several such words are allowed for one option.
        long: whether it does long work, which a dry run estimates.

    The command ends with the `exit_code` of what its function returns, where that has one, and else with 0.
    """

    summary: str
    example: str
    positional: str | tuple[str, ...] | None = None
    many: bool = False
    long: bool = False


VERBS = {
    "quickstart": Verb("the main job from end to end, on handwritten digits", "poise quickstart"),
    "finetune": Verb(
        "make a pretrained classifier robust on your images",
        "poise finetune timm:resnet18 --weights resnet18.safetensors --data folder:photos --threat.epsilon 4/255",
        positional="model",
        long=True,
    ),
    "tune": Verb(
        "search for the best options of a fine-tuning",
        "poise tune search.yaml --trials 50 --where 'clean >= 0.8'",
        positional="recipe",
        long=True,
    ),
    "update": Verb(
        "replace a model by a better one without losing what the old one did right",
        "poise update --old run:runs/yesterday --new run:runs/today",
        long=True,
    ),
    "profile": Verb(
        "verdicts on every image over a grid of epsilons",
        "poise profile run:runs/finetune",
        positional="model",
        long=True,
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
    ),
    "certify": Verb(
        "a proven radius for every image: smoothing, or bounds of the network itself",
        "poise certify run:runs/finetune --sigma 0.25",
        positional="model",
        long=True,
    ),
    "report": Verb(
        "runs beside each other: a table and a page", "poise report runs/a runs/b", positional="runs", many=True
    ),
    "export": Verb(
        "a model as a file for another runtime, with a model card", "poise export run:runs/finetune", positional="model"
    ),
    "demo": Verb("a page to try and attack a model in the browser", "poise demo runs/mix", positional="model"),
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(words)
    except Misuse as error:
        return _told(str(error), REFUSED)
    except Failure as error:
        return _told(str(error), FAILED)
    except OSError as error:
        return _told(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", REFUSED)
    except KeyboardInterrupt:
        return _told(
            "interrupted; a profile goes on with the same command, a run with --config RUN/recipe.yaml --resume",
            INTERRUPTED,
        )


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in {"-h", "--help", "help"}:
        print(_overview())  # noqa: T201
    elif words[0] == "--version":
        print(f"poise {version('poise')}")  # noqa: T201
    else:
        return _run(words[0], words[1:])
    return 0


def _told(line: str, code: int) -> int:
    print(f"poise: {' '.join(line.split())}", file=sys.stderr)  # noqa: T201
    return code


def _overview() -> str:
    width = max(map(len, VERBS))
    lines = [f"  {name:<{width}}  {verb.summary}\n  {'':<{width}}  $ {verb.example}" for name, verb in VERBS.items()]
    return (
        "usage: poise VERB [OPTIONS]\n\nRobust image classifiers from pretrained ones.\n\n"
        + "\n".join(lines)
        + "\n\npoise VERB --help lists a verb's options; poise --version says the version.\n"
        "Every option can stand in a recipe: poise finetune --config recipe.yaml --schedule.stop 0.6\n"
        f"Before long work ({', '.join(name for name, verb in VERBS.items() if verb.long)}), "
        "--dry-run prints the recipe and what it would cost.\n\n"
        "exit codes:\n" + "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    )


def _run(name: str, words: list[str]) -> int:
    if name not in VERBS:
        raise Misuse(f"unknown command {name!r}; {suggestion(name, VERBS)}")
    verb = VERBS[name]
    module = import_module(f"poise.commands.{name}")
    function: Callable[..., Any] = getattr(module, name)
    parser = parser_of(name, verb, function)
    named = _normalised(words, verb, parser)
    chosen = parser.parse_args(module.inherited(named) if hasattr(module, "inherited") else named)
    options = {key: value for key, value in vars(parser.instantiate(chosen)).items() if key != "config"}
    if options.pop("dry_run", False):
        return _rehearsed(name, options)
    return int(getattr(function(**options), "exit_code", 0))


def _rehearsed(name: str, options: dict[str, Any]) -> int:
    from poise.commands.rehearsal.estimate import rehearse  # noqa: PLC0415 - only a dry run needs it

    print(rehearse(name, **options))  # noqa: T201 - the result
    return 0


def parser_of(name: str, verb: Verb, function: Callable[..., Any]) -> Any:
    """The parser of a verb's options, as its function's types and docstring tell them."""
    from jsonargparse import ArgumentParser, set_loader  # noqa: PLC0415 - only a verb needs it
    from jsonargparse.typing import register_type  # noqa: PLC0415

    from poise.commands.telling.wording import readable  # noqa: PLC0415

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
            raise Misuse(readable(message, name))

    set_loader("recipe", _load_recipe, exceptions=(ValueError,))
    register_type(Epsilon, str, Epsilon, fail_already_registered=False)
    parser = Parser(prog=f"poise {name}", parser_mode="recipe", epilog=f"example: {verb.example}")
    parser.add_argument("--config", action="config", help="a recipe; options given beside it win")
    parser.add_function_arguments(function, as_positional=False, fail_untyped=True)
    if verb.long:
        parser.add_argument("--dry_run", type=bool, default=False, help=_DRY_RUN)
    return parser


def options_of(name: str, tree: dict[str, Any]) -> dict[str, Any]:
    """The options of a verb as its function takes them, from a recipe's tree; what it leaves out is as by default.

    Raises:
        Misuse: for what the command line would refuse as well.
    """
    from poise.commands.recipe import expanded  # noqa: PLC0415

    function: Callable[..., Any] = getattr(import_module(f"poise.commands.{name}"), name)
    parser = parser_of(name, VERBS[name], function)
    found = parser.instantiate(parser.parse_object(expanded(tree)))
    return {key: value for key, value in vars(found).items() if key not in {"config", "dry_run"}}


def _load_recipe(text: str) -> Any:
    import yaml  # noqa: PLC0415

    from poise.commands.recipe import expanded  # noqa: PLC0415

    try:
        return expanded(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _normalised(words: list[str], verb: Verb, parser: Any) -> list[str]:
    """Words as the parser reads them: unnamed ones named, dashes in options as underscores, kinds as import paths."""
    from poise.commands.recipe import FAMILIES, import_path  # noqa: PLC0415

    unnamed = []
    while words and not words[0].startswith("-"):
        unnamed.append(words.pop(0))
    result = _named(unnamed, verb)
    known = {option: action for action in parser._actions for option in action.option_strings}  # noqa: SLF001
    family, listed = None, False
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            option = option.replace("-", "_").replace("__", "--", 1)
            _check_option(option, known)
            last = option.rpartition(".")[2].removeprefix("--")
            family = last if last in FAMILIES and not equals else None
            if equals and last in FAMILIES:
                value = import_path(last, value)
            kind = getattr(known.get(option), "_typehint", None)
            if (kind is bool or option not in known) and not equals and following.startswith("--"):
                equals, value = "=", "true"
            listed = _holds_list(kind)
            result.append(option + equals + (_bracketed(value) if listed and equals else value))
        else:
            result.append(import_path(family, word) if family else _bracketed(word) if listed else word)
            family, listed = None, False
    return result


def _holds_list(kind: Any) -> bool:
    """Whether an option takes several values: list[...], tuple[...], or one of these or nothing."""
    return any(get_origin(part) in {list, tuple} for part in (kind, *get_args(kind)))


def _bracketed(value: str) -> str:
    """Values separated by commas, as a list of YAML."""
    return value if value.startswith("[") else f"[{value}]"


def _named(unnamed: list[str], verb: Verb) -> list[str]:
    if not unnamed:
        return []
    names = (verb.positional,) if isinstance(verb.positional, str) else verb.positional or ()
    if verb.many:
        return [f"--{names[0]}", json.dumps(unnamed)]
    if len(unnamed) > len(names):
        raise Misuse(f"unexpected word {unnamed[-1]!r}; options have names, e.g. {verb.example}")
    return [word for name, value in zip(names, unnamed, strict=False) for word in (f"--{name}", value)]


def _check_option(option: str, known: Collection[str]) -> None:
    """Refuse an option that does not exist, naming the nearest; options of a family's member are left to the parser."""
    root = option.partition(".")[0]
    if option in known or (root in known and "." in option and f"{root}.help" in known):
        return
    raise Misuse(f"unknown option {option!r}; {suggestion(option, (name for name in known if name != '-h'))}")
