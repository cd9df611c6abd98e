from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from poise.cli import EXIT_CODES, main
from poise.commands.parsing import options_in
from poise.commands.recipe import read_recipe
from poise.commands.verbs import VERBS
from poise.core.misuse import Failure, Misuse


def _said(capsys, *words: str) -> tuple[int, str]:
    code = main(list(words))
    return code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("finetun", "unknown command 'finetun'; did you mean 'finetune'?"),
        ("finetune small --transfer.blocks 2", "'--transfer.blocks' is an option of last; choose with --transfer last"),
        ("finetune small --objective mixing", "this model has none: see poise mix"),
        ("finetune small --modle x", "unknown option '--modle'; did you mean '--model'?"),
        ("finetune small --schedule hing", "unknown schedule 'hing'; did you mean 'hinge'?"),
        ("finetune small --schedule.stp 0.5", "unknown option '--schedule.stp'; did you mean 'stop'?"),
        ("finetune small --schedule=hing", "unknown schedule 'hing'; did you mean 'hinge'?"),
        (
            "finetune small --threat.epsilon 8",
            "epsilon 8 is larger than the whole image range [0, 1]; did you mean 8/255?",
        ),
        ("finetune small --threat.epsilon x", "epsilon must be a number or a fraction such as 8/255; got 'x'"),
        ("finetune small --threat.epsilon -1", "epsilon must be a finite number of at least 0"),
        ("finetune small --threat.norm l3", "--threat.norm: 'l3' is unknown; valid: l1, l2, linf"),
        ("finetune small --training.epochs many", "--training.epochs: expected a whole number; got 'many'"),
        ("finetune small --training.epochs 0", "epochs must be a whole number of at least 1; got 0"),
        ("finetune small --schedule.stop 0.1", "a hinge needs 0 <= start <= stop <= 1"),
        (
            "finetune small --schedule adaptive --validate-on 0",
            "the schedule adaptive listens to validation; give it some images with --validate-on",
        ),
        ("finetune small --validate-on -1", "validate_on must be at least 0; got -1"),
        ("finetune small --schedule random --schedule.low 2", "random budgets need 0 <= low <= high <= 1"),
        (
            "finetune small --objective averaged --objective.objective trads",
            "unknown objective 'trads'; did you mean 'trades'?",
        ),
        ("finetune small --objective guarded --objective.judge agpd", "unknown judge 'agpd'; did you mean 'apgd'?"),
        (
            "finetune small --objective labelsmoothing --objective.smoothing 2",
            "label smoothing must be in [0, 1]; got 2.0",
        ),
        ("finetune small --augmentation flop", "--augmentation: 'flop' is unknown; did you mean 'flip'?"),
        ("finetune nope:x", "no model is of the kind 'nope'"),
        ("finetune small --data digit", "digits"),
        ("finetune small --data .", "a folder by itself is no address of data; did you mean 'folder:.'?"),
        ("profile .", "a folder is no address of a model; did you mean 'run:.'?"),
        ("finetune small --training.learnin_rate 1", "did you mean 'learning_rate'?"),
        ("finetune small --training.lr 1", "valid: batch_norm, batch_size, "),
        ("finetune small --data folder:nowhere", "there is no folder nowhere"),
        ("finetune timm:resnet81", "resnet"),
        ("finetune", "missing: --model"),
        ("profile small run", "unexpected word 'run'"),
        ("profile run:nowhere", "nowhere is not a run folder"),
        ("report nowhere", "nowhere does not exist"),
        ("report", "missing: --runs"),
        ("finetune --config nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_misuse_is_one_readable_line_and_leaves_nothing(capsys, tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    code, told = _said(capsys, *words.split())
    assert code == 2
    assert line in told
    assert told.startswith("poise: ")
    assert "\n" not in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


def test_objectives_inside_objectives_can_be_named_on_the_command_line(tmp_path):
    words = "finetune small --limit 40 --validate-on 0 --training.epochs 1 --threat.epsilon 0.1 --objective guarded"
    words += " --objective.switch --objective.objective averaged --objective.objective.decay 0.9"
    words += " --objective.objective.objective trades --objective.objective.objective.attack fgsm --trackers []"
    assert main([*words.split(), "--out", str(tmp_path / "run")]) == 0
    written = read_recipe(tmp_path / "run" / "recipe.yaml")["objective"]
    assert (written["kind"], written["switch"], written["objective"]["decay"]) == ("guarded", True, 0.9)
    assert written["objective"]["objective"]["attack"]["kind"] == "fgsm"


def test_help_lists_every_verb_with_an_example_within_a_second():
    """The fastest of three, as other work on the machine may slow any one down."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        told = subprocess.run([sys.executable, "-m", "poise", "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert all(f"$ {verb.example}" in told.stdout for verb in VERBS.values())
    assert min(seconds) < 1


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_names_its_options(capsys, verb):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert VERBS[verb].example in " ".join(told.split())
    for name in {"finetune": ["--schedule", "--skip-unreadable"], "report": ["--out"]}.get(verb, []):
        assert name in told


def _help(capsys, *words: str) -> str:
    """What help says, on one line."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_speaks_as_the_documentation_does(capsys):
    told = _help(capsys, "finetune", "--help")
    assert "--image-size IMAGE_SIZE resize the shorter side to this and crop the centre. (whole number or null" in told
    assert "[--skip-unreadable] [--validate-on VALIDATE_ON]" in told
    assert "--dry-run print the full recipe" in told
    assert "--schedule KIND how epsilon grows to the threat's: hinge, fixed," in told
    assert "(follows what the network can take). (default: hinge)" in told
    assert (
        "--trackers [ITEM,...] where accelerate sends the figures of every epoch; [] for nowhere. "
        "(list of texts; default: [tensorboard])" in told
    )
    assert "(path or null; default: null)" in told
    assert not re.findall(r"--[\w.-]*_[\w.]*", told)
    for parsers_own in ("class_path", "poise.", "Union", "<class", "RCAT", "rcat"):
        assert parsers_own not in told


@pytest.mark.parametrize("kind", ["hinge", "Hinge", "poise.Hinge", "poise.schedules.Hinge"])
def test_the_options_of_a_kind_have_help_under_each_of_its_names(capsys, kind):
    told = _help(capsys, "finetune", "--schedule.help", kind)
    assert told.startswith("usage: poise finetune [--schedule.every {epoch,step}] [--schedule.start START]")
    assert " --schedule hinge " in told
    assert "in [0, 1]. (number; default: 0.25)" in told


def test_kinds_inside_a_kind_are_listed_by_short_names(capsys):
    told = _help(capsys, "finetune", "--objective.help=guarded")
    assert "(apgd, fgsm, pgd, or an import path; default: pgd)" in told
    assert "(default: {kind: adversarial, attack: fgsm})" in told


def test_a_kind_that_does_not_exist_has_no_help(capsys):
    code, told = _said(capsys, "finetune", "--schedule.help", "hing")
    assert (code, told) == (2, "poise: unknown schedule 'hing'; did you mean 'hinge'?")


@pytest.mark.parametrize(
    "option", ["--image-size", "--image_size", "--objective.attack.step-size=0.5", "--objective.attack.step_size=0.5"]
)
def test_dashes_and_underscores_are_read_alike(option):
    words = [option] if "=" in option else [option, "32"]
    options = options_in("finetune", ["small", *words])
    assert options["image_size"] == (None if "=" in option else 32)
    assert options["objective"].attack.step_size == (0.5 if "=" in option else "auto")


def test_help_and_docs_name_every_exit_code(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    page = (Path(__file__).parents[2] / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES.items():
        assert f"  {code:<4} {meaning}\n" in told
        assert f"| {code} | {meaning} |\n" in page


@pytest.mark.parametrize(
    ("error", "code"), [(Misuse("x"), 2), (Failure("x"), 1), (OSError(28, "full"), 2), (KeyboardInterrupt(), 130)]
)
def test_what_stops_a_command_decides_its_exit_code(error, code, capsys, monkeypatch):
    def stopped() -> None:
        raise error

    monkeypatch.setattr("poise.commands.doctor.doctor", stopped)
    assert _said(capsys, "doctor")[0] == code


@pytest.mark.parametrize("name", VERBS)
def test_what_ctrl_c_stops_says_how_it_goes_on_if_it_does(name, capsys, monkeypatch):
    def stopped(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("poise.cli._run", stopped)
    going_on = {
        **dict.fromkeys(
            ("finetune", "update", "mix"), "; a run that has begun goes on with --config RUN/recipe.yaml --resume"
        ),
        **dict.fromkeys(("quickstart", "tune", "profile", "certify"), "; the same command goes on from there"),
    }
    assert _said(capsys, name) == (130, f"poise: interrupted{going_on.get(name, '')}")
    assert (name in EXIT_CODES[130]) == (name in going_on)


def test_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("poise 0.")


def test_a_full_disk_is_one_line(capsys, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr("poise.core.run_folder.RunFolder.create", full)
    code, told = _said(capsys, "finetune", "small", "--out", str(tmp_path / "x"))
    assert (code, told) == (2, "poise: No space left on device: runs/x")


def test_an_error_of_poise_itself_does_not_look_like_a_gate_that_failed(monkeypatch, capsys):
    monkeypatch.setattr("poise.cli.function_of", lambda name: lambda **options: {}["a bug"])
    assert main(["doctor"]) == 3
    assert "KeyError: 'a bug'" in capsys.readouterr().err
