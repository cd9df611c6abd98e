"""The command line: which verb runs, what ends it, and what a person is told when it fails."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from poise.commands.verbs import VERBS, function_of
from poise.core.misuse import Failure, Misuse, suggestion

FAILED, REFUSED, BROKEN, INTERRUPTED = 1, 2, 3, 130
"""Exit codes beside 0: work that could not go on, a request that cannot be honoured, an error of poise, Ctrl-C."""

EXIT_CODES = {
    0: "done; a gate passed",
    FAILED: "work began and could not go on; a gate failed",
    REFUSED: "the request cannot be honoured, or a file cannot be read or written; a gate cannot be judged",
    BROKEN: "an error of poise itself, or of code that it was given, with its traceback",
    INTERRUPTED: (
        "interrupted by Ctrl-C; finetune, update and mix go on with --resume, quickstart, tune, profile and certify "
        "with the same command"
    ),
}
"""What each exit code means."""


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
        how = VERBS[words[0]].going_on if words and words[0] in VERBS else ""
        return _told("; ".join(filter(None, ("interrupted", how))), INTERRUPTED)
    except Exception:  # noqa: BLE001 - whatever it is, it must not look like a gate that failed
        traceback.print_exc()
        return BROKEN


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
    from poise.commands.parsing import options_in  # noqa: PLC0415 - only a verb needs a parser

    options = options_in(name, words)
    if options.pop("dry_run", False):
        return _rehearsed(name, options)
    return int(getattr(function_of(name)(**options), "exit_code", 0))


def _rehearsed(name: str, options: dict[str, Any]) -> int:
    from poise.commands.rehearsal.estimate import rehearse  # noqa: PLC0415 - only a dry run needs it

    print(rehearse(name, **options))  # noqa: T201 - the result
    return 0
