"""Completion of verbs, options and their closed values, as a script for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Literal, get_args, get_origin

from poise.commands.parsing import parser_of
from poise.commands.recipe import FAMILIES, fields_of, members
from poise.commands.telling.help_text import with_dashes
from poise.commands.verbs import VERBS
from poise.core.misuse import check_choice

Shell = Literal["bash", "zsh", "fish"]

Choices = Mapping[str, tuple[str, ...]]
"""Options of a verb, each with the values that it is closed to; none where anything may stand."""


def completion(shell: Shell = "bash") -> str:
    """Print a script with which a shell completes verbs, options and their values.

    It names the options of this version and of the families' members that are installed with it, and asks nothing of
    poise while one types. Options are written with dashes, as in the help.

    Args:
        shell: bash, zsh or fish.

    Returns:
        The script that was printed.

    Raises:
        Misuse: for another shell.
    """
    writers: dict[str, Callable[[Mapping[str, str], Mapping[str, Choices]], str]] = {
        "bash": _bash,
        "zsh": _zsh,
        "fish": _fish,
    }
    check_choice("shell", shell, get_args(Shell))
    summaries = {name: verb.summary for name, verb in VERBS.items()}
    script = writers[shell](summaries, {name: choices_of(name) for name in VERBS})
    print(script)  # noqa: T201 - the result
    return script


def choices_of(name: str) -> dict[str, tuple[str, ...]]:
    """The options of a verb, those of families' members among them, each with the values that it is closed to."""
    found: dict[str, tuple[str, ...]] = {}
    for action in parser_of(name)._actions:  # noqa: SLF001
        option = with_dashes(action.option_strings[-1] if len(action.option_strings) == 1 else f"--{action.dest}")
        family, kind = option.rpartition(".")[2].removeprefix("--"), getattr(action, "_typehint", None)
        if family in FAMILIES:
            found[option] = tuple(members(family))
            found |= {
                f"{option}.{with_dashes(field)}": ()
                for member in members(family)
                for field in fields_of(family, member)
            }
        elif not option.endswith(".help"):
            closed = (
                value for part in (kind, *get_args(kind)) if get_origin(part) is Literal for value in get_args(part)
            )
            found[option] = ("true", "false") if kind is bool else tuple(map(str, closed))
    return found


def _bash(summaries: Mapping[str, str], choices: Mapping[str, Choices]) -> str:
    return f"""# poise completion bash
_poise() {{
  local verb="${{COMP_WORDS[1]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" word="${{COMP_WORDS[COMP_CWORD]}}" known=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W {shlex.quote(" ".join(summaries))} -- "$word"))
    return
  fi
{_cases(choices, "    {0}) known={1} ;;")}
  COMPREPLY=($(compgen -W "$known" -- "$word"))
}}
complete -o default -F _poise poise"""


def _zsh(summaries: Mapping[str, str], choices: Mapping[str, Choices]) -> str:
    return f"""#compdef poise
# poise completion zsh
_poise() {{
  local verb="${{words[2]}}" before="${{words[CURRENT-1]}}" word="${{words[CURRENT]}}" known=""
  if (( CURRENT == 2 )); then
    compadd -- {" ".join(summaries)}
    return
  fi
{_cases(choices, "    {0}) known={1} ;;")}
  if [[ -n "$known" ]]; then compadd -- ${{=known}}; else _files; fi
}}
compdef _poise poise"""


def _cases(choices: Mapping[str, Choices], line: str) -> str:
    """What may stand next: values of the option before, or else options of the verb."""
    values = [
        line.format(shlex.quote(f"{verb} {option}"), shlex.quote(" ".join(known)))
        for verb, options in choices.items()
        for option, known in options.items()
        if known
    ]
    options = [line.format(verb, shlex.quote(" ".join(found))) for verb, found in choices.items()]
    return "\n".join(
        [
            '  if [[ "$word" == -* ]]; then',
            '    case "$verb" in',
            *(f"  {option}" for option in options),
            "    esac",
            "  else",
            '    case "$verb $before" in',
            *(f"  {value}" for value in values),
            "    esac",
            "  fi",
        ]
    )


def _fish(summaries: Mapping[str, str], choices: Mapping[str, Choices]) -> str:
    lines = ["# poise completion fish"]
    for verb, summary in summaries.items():
        said = summary.replace("\\", "\\\\").replace("'", "\\'")
        lines.append(f"complete -c poise -n __fish_use_subcommand -f -a {verb} -d '{said}'")
        for option, known in choices[verb].items():
            words = f" -x -a {shlex.quote(' '.join(known))}" if known else ""
            lines.append(
                f"complete -c poise -n '__fish_seen_subcommand_from {verb}' -l {option.removeprefix('--')}{words}"
            )
    return "\n".join(lines)
