"""Completion scripts, asked as a shell asks them where the shell is there."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from poise.cli import main
from poise.commands.completion import choices_of, completion
from poise.commands.verbs import VERBS


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """Answers what bash offers for the last of some words."""
    path = tmp_path_factory.mktemp("completion") / "poise"
    path.write_text(completion("bash"), encoding="utf-8")
    asked = f'source {path}; COMP_WORDS=(poise "$@"); COMP_CWORD=$#; _poise; printf "%s\\n" "${{COMPREPLY[@]}}"'

    def offered(*words):
        told = subprocess.run(["bash", "-c", asked, "bash", *words], capture_output=True, text=True, check=True)
        assert told.stderr == ""
        return told.stdout.split()

    return offered


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("fi",), ["finetune"]),
        (("co",), ["compare", "completion"]),
        (("profile", "--suite", "auto"), ["autoattack", "autoattack-plus", "autoattack-rand"]),
        (("profile", "small", "--keep"), ["--keep-adversarials"]),
        (("finetune", "--objective", "r"), ["rcat"]),
        (("finetune", "--training.compile", "--threat.n"), ["--threat.norm"]),
        (("finetune", "small", "--schedule.pa"), ["--schedule.patience"]),
        (("mix", "--dry"), ["--dry-run"]),
        (("report", "runs/"), []),
    ],
)
def test_bash_offers_what_may_follow(bash, words, offered):
    assert bash(*words) == offered


def test_every_verb_completes_its_options(bash):
    for verb in VERBS:
        assert bash(verb, "--") == [option for option in choices_of(verb) if option.startswith("--")]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(shell, tmp_path, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for verb in VERBS:
        assert verb in script
    assert "autoattack autoattack-plus autoattack-rand apgd pgd fast" in script
    assert ("-l training.batch-size" if shell == "fish" else "--training.batch-size") in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script, encoding="utf-8")
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_an_unknown_shell_is_refused(capsys):
    assert main(["completion", "zhs"]) == 2
    assert "did you mean 'zsh'?" in capsys.readouterr().err
