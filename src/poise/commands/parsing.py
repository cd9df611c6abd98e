"""From words and recipes to the options of a verb, by the types and the docstring of its function."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NoReturn, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader
from jsonargparse.typing import register_type

from poise.commands.recipe import FAMILIES, expanded, import_path, recipe_of_verb
from poise.commands.run import address_of, threat_of
from poise.commands.telling.help_text import HelpFormatter, with_dashes
from poise.commands.telling.wording import readable
from poise.commands.verbs import VERBS, Verb, function_of
from poise.core.misuse import Misuse, suggestion
from poise.core.threat import Epsilon

_LAST = 100
_DRY_RUN = "print the full recipe and what it would cost, by passes timed on this machine, and make nothing"


def parser_of(name: str) -> Any:
    """The parser of a verb's options, as its function's types and docstring tell them."""
    verb = VERBS[name]

    class Parser(ArgumentParser):
        """Also that of a kind's options, which `--schedule.help hinge` makes."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, prog=f"poise {name}", formatter_class=HelpFormatter, **kwargs)

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002
            raise Misuse(readable(message, name))

    set_loader("recipe", partial(_load_recipe, verb=name), exceptions=(ValueError,))
    register_type(Epsilon, str, Epsilon, fail_already_registered=False)
    parser = Parser(parser_mode="recipe", epilog=f"example: {verb.example}")
    parser.add_argument("--config", action="config", help="a recipe; options given beside it win")
    parser.add_function_arguments(function_of(name), as_positional=False, fail_untyped=True)
    if verb.long:
        parser.add_argument("--dry_run", type=bool, default=False, help=_DRY_RUN)
    return parser


def options_in(name: str, words: list[str]) -> dict[str, Any]:
    """The options of a verb as its function takes them, from the words of a command line; "dry_run" where it was said.

    Raises:
        Misuse: for words that make no sense.
    """
    parser = parser_of(name)
    named = _normalised(words, VERBS[name], parser)
    chosen = parser.parse_args([*named, *_meant(VERBS[name], parser.parse_args(named, defaults=False))])
    return {key: value for key, value in vars(parser.instantiate(chosen)).items() if key != "config"}


def options_of(name: str, tree: dict[str, Any]) -> dict[str, Any]:
    """The options of a verb as its function takes them, from a recipe's tree; what it leaves out is as by default.

    Raises:
        Misuse: for what the command line would refuse as well.
    """
    parser = parser_of(name)
    found = parser.instantiate(parser.parse_object(expanded(tree)))
    return {key: value for key, value in vars(found).items() if key not in {"config", "dry_run"}}


def _load_recipe(text: str, verb: str) -> Any:
    if (foreign := recipe_of_verb(text)) not in ("", verb):
        raise ValueError(f"this is a recipe of poise {foreign}")
    try:
        return expanded(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _normalised(words: list[str], verb: Verb, parser: Any) -> list[str]:
    """Words as the parser reads them: unnamed ones named, dashes in options as underscores, kinds spelt out and first.

    A recipe comes before all, and a kind before its options, in whatever order they were given.
    """
    unnamed = []
    while words and not words[0].startswith("-"):
        unnamed.append(words.pop(0))
    groups = [_named(unnamed, verb)]
    known = {option: action for action in parser._actions for option in action.option_strings}  # noqa: SLF001
    reading, listed = None, False
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if word.startswith("--"):
            option, equals, value = word.partition("=")
            option = option.replace("-", "_").replace("__", "--", 1)
            _check_option(option, known)
            reading = _reading(option)
            if equals and reading:
                value, reading = reading(value), None
            kind = getattr(known.get(option), "_typehint", None)
            if (kind is bool or option not in known) and not equals and following.startswith("--"):
                equals, value = "=", "true"
            listed = _holds_list(kind)
            groups.append([option + equals + (_bracketed(value) if listed and equals else value)])
        else:
            groups[-1].append(reading(word) if reading else _bracketed(word) if listed else word)
            reading, listed = None, False
    return [word for group in sorted(groups, key=_rank) for word in group]


def _rank(group: list[str]) -> int:
    """When an option is read: recipes first, then kinds, outer before inner, then everything else."""
    name = group[0].partition("=")[0].removeprefix("--") if group else ""
    if name == "config":
        return 0
    return 1 + name.count(".") if name.rpartition(".")[2] in FAMILIES else _LAST


def _reading(option: str) -> Callable[[str], str] | None:
    """How the word behind an option is read that names a kind; None for other options."""
    family = option.removesuffix(".help").rpartition(".")[2].removeprefix("--")
    if family not in FAMILIES:
        return None
    return partial(import_path if option.endswith(".help") else _spelt_out, family)


def _spelt_out(family: str, kind: str) -> str:
    """A member with all its defaults, as JSON; what is no name of one is left as it is."""
    return kind if kind.startswith("{") else json.dumps(expanded({family: kind})[family])


def _holds_list(kind: Any) -> bool:
    """Whether an option takes several values: list[...], tuple[...], or one of these or nothing."""
    return any(get_origin(part) in {list, tuple} for part in (kind, *get_args(kind)))


def _bracketed(value: str) -> str:
    """Values separated by commas, as a list of YAML; words with blanks between them are one value."""
    if value.startswith("["):
        return value
    prose = any(" " in part.strip() for part in value.split(","))
    return json.dumps([value], ensure_ascii=False) if prose else f"[{value}]"


def _named(unnamed: list[str], verb: Verb) -> list[str]:
    if not unnamed:
        return []
    names = (verb.positional,) if isinstance(verb.positional, str) else verb.positional or ()
    if verb.many:
        return [f"--{names[0]}", json.dumps(unnamed)]
    if len(unnamed) > len(names):
        raise Misuse(f"unexpected word {unnamed[-1]!r}; options have names, e.g. {verb.example}")
    return [word for name, value in zip(names, unnamed, strict=False) for word in (f"--{name}", value)]


def _meant(verb: Verb, given: Namespace) -> list[str]:
    """What words and recipes leave out of a threat that they name in part, as the run says that they speak of."""
    named = given.get("threat")
    if verb.meant is None or not isinstance(named, Namespace):
        return []
    threat = threat_of(address_of(given[verb.meant]))
    return [word for name in threat if name not in named for word in (f"--threat.{name}", str(threat[name]))]


def _check_option(option: str, known: Collection[str]) -> None:
    """Refuse an option that does not exist, naming the nearest; options of a family's member are left to the parser."""
    root = option.partition(".")[0]
    if option in known or (root in known and "." in option and f"{root}.help" in known):
        return
    beside = {name.removeprefix(f"{root}.") for name in known if name.startswith(f"{root}.")} - {"help"}
    if beside and "." in option:
        raise Misuse(f"unknown option {option!r}; {suggestion(option.removeprefix(f'{root}.'), beside)}")
    written, others = with_dashes(option), (with_dashes(name) for name in known if name != "-h")
    raise Misuse(f"unknown option {written!r}; {suggestion(written, others)}")
