"""Searches: small ones, on digits."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import poise
from poise.commands.finetune import finetune
from poise.commands.recipe import read_recipe
from poise.commands.searching import studies
from poise.commands.searching.goals import figures_of
from poise.core.misuse import Failure, Misuse
from poise.core.run_folder import RunFolder
from poise.evaluation import examine
from poise.schedules import Moment

optuna = pytest.importorskip("optuna")

RECIPE = """
model: small
data: digits
limit: 60
validate_on: 20
trackers: []
augmentation: none
threat: {epsilon: 0.1}
training: {epochs: 3, batch_size: 32, learning_rate: {from: 1e-6, to: 3e-2, log: true}}
schedule: {kind: hinge, start: 0.0, stop: {among: [0.5, 1.0]}}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "search.yaml"
    path.write_text(RECIPE)
    return path


def _trials(folder: Path) -> list:
    return optuna.load_study(study_name="poise", storage=f"sqlite:///{folder / 'study.db'}").trials


def test_a_search_ends_with_the_best_recipe_and_a_page_and_goes_on(recipe, tmp_path):
    out = tmp_path / "search"
    best = poise.tune(recipe, trials=2, maximise="clean", out=out, prune_after=1)
    trials = _trials(out)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    winner = max(trials, key=lambda trial: trial.value)
    tree = read_recipe(best)
    assert tree["training"]["learning_rate"] == winner.params["training.learning_rate"]
    assert tree["schedule"]["stop"] == winner.params["schedule.stop"]
    history = RunFolder(out / "trials" / f"{winner.number:05d}").history()
    assert winner.value == history[-1]["validation/clean"]
    assert [path.parent.name for path in out.glob("trials/*/model.safetensors")] == [f"{winner.number:05d}"]
    page = (out / "search.html").read_text()
    assert "training.learning_rate" in page
    assert "https://cdn" not in page.split("<body")[1].split("<script")[0]
    poise.tune(recipe, trials=3, maximise="clean", out=out, prune_after=1)
    assert len(_trials(out)) == 3
    with pytest.raises(Misuse, match="was begun with another recipe, figure, bounds or suite"):
        poise.tune(recipe, trials=3, maximise="robust", out=out, prune_after=1)


def test_the_best_recipe_is_one_that_finetune_runs_to_the_same_figures(recipe, tmp_path):
    best = poise.tune(recipe, trials=1, out=tmp_path / "search", prune_after=1)
    from poise.cli import main

    assert main(["finetune", "--config", str(best), "--out", str(tmp_path / "again")]) == 0
    again, trial = (RunFolder(tmp_path / name).history()[-1] for name in ("again", "search/trials/00000"))
    assert again["validation/robust"] == trial["validation/robust"]
    assert trial["validation/robust"] <= trial["validation/expected"] <= trial["validation/clean"]


def test_a_trial_is_worth_what_its_kept_weights_are(recipe, tmp_path, monkeypatch):
    """Of a trial that withstands most after its first epoch, of three, that epoch's figures count."""

    def figures(profile, names):
        found = figures_of(profile, names)
        measured.append(found)
        return found | {"robust": 1 - 0.1 * len(measured)}

    measured: list[dict[str, float]] = []
    monkeypatch.setattr("poise.commands.tune.figures_of", figures)
    recipe.write_text(RECIPE + "keep: best\n")
    poise.tune(recipe, trials=1, out=tmp_path / "search", prune_after=1)
    (trial,) = _trials(tmp_path / "search")
    assert len(measured) == 3
    assert trial.value == measured[0]["expected"] != measured[2]["expected"]
    assert trial.intermediate_values == dict.fromkeys(range(3), trial.value)
    assert read_recipe(tmp_path / "search" / "best.yaml")["keep"] == "best"


def test_the_suite_judges_every_figure_and_is_one_for_all_trials(recipe, tmp_path, monkeypatch):
    asked = []

    def examined(classifier, images, examination, **options):
        asked.append(examination.suite)
        return examine(classifier, images, examination, **options)

    monkeypatch.setattr("poise.commands.tune.examine", examined)
    recipe.write_text(RECIPE.replace("epochs: 3", "epochs: 1"))
    out = tmp_path / "search"
    poise.tune(recipe, trials=1, maximise="robust", where="clean >= 0", suite="pgd", out=out)
    assert asked == ["pgd"]
    with pytest.raises(Misuse, match="was begun with another recipe, figure, bounds or suite"):
        poise.tune(recipe, trials=1, maximise="robust", where="clean >= 0", suite="fast", out=out)


def test_bounds_decide_who_may_win_and_a_search_that_keeps_none_fails(recipe, tmp_path):
    with pytest.raises(Failure, match=r"none of 1 trials was finished within the bounds \(clean >= 1\)"):
        poise.tune(recipe, trials=1, where="clean >= 100%", out=tmp_path / "search", prune_after=1)
    assert not (tmp_path / "search" / "best.yaml").exists()


def test_a_trial_that_falls_behind_is_stopped(recipe, tmp_path, monkeypatch):
    """Trials report what their number says: the later, the worse."""
    made = []

    def fine_tuned(ready, *, noted, **_):
        made.append(ready.options)
        for epoch in range(3):
            noted({"epoch": epoch, "epsilon": 0.1, "validation/clean": 0.9 - 0.1 * len(made)})

    monkeypatch.setattr("poise.commands.tune.fine_tuned", fine_tuned)
    poise.tune(recipe, trials=6, maximise="clean", out=tmp_path / "search", prune_after=0.4)
    trials = _trials(tmp_path / "search")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 4 + ["PRUNED"] * 2
    assert [len(trial.intermediate_values) for trial in trials] == [3, 3, 3, 3, 2, 2]
    assert len({options["training"].learning_rate for options in made}) == 6


def test_trials_outside_the_bounds_stop_none_that_keeps_them(recipe, tmp_path, monkeypatch):
    """The first four are better at the figure, outside the bound; the others are all that may be the best."""
    made = []

    def fine_tuned(ready, *, noted, **_):
        made.append(ready.options)
        clean, robust = (0.7, 0.29) if len(made) <= 4 else (0.9, 0.25)
        for epoch in range(3):
            noted({"epoch": epoch, "epsilon": 0.1, "validation/clean": clean, "validation/robust": robust})

    monkeypatch.setattr("poise.commands.tune.fine_tuned", fine_tuned)
    best = poise.tune(recipe, trials=8, maximise="robust", where="clean >= 0.8", out=tmp_path / "search")
    trials = _trials(tmp_path / "search")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 8
    assert read_recipe(best)["training"]["learning_rate"] == trials[4].params["training.learning_rate"]


def test_no_trial_is_stopped_after_its_last_epoch(recipe, tmp_path, monkeypatch):
    made = []

    def fine_tuned(ready, *, noted, **_):
        made.append(ready.options)
        for epoch in range(3):
            noted({"epoch": epoch, "epsilon": 0.1 * (epoch == 2), "validation/clean": 0.1 if len(made) > 4 else 0.9})

    monkeypatch.setattr("poise.commands.tune.fine_tuned", fine_tuned)
    poise.tune(recipe, trials=5, maximise="clean", out=tmp_path / "search")
    assert [trial.state.name for trial in _trials(tmp_path / "search")] == ["COMPLETE"] * 5


def test_a_late_ramp_is_not_stopped_for_being_late(tmp_path, monkeypatch):
    """A figure that grows with the share of epsilon, and comes to the more the later the ramp ends."""
    path = tmp_path / "search.yaml"
    tree = yaml.safe_load(RECIPE)
    training = {"epochs": 10, "learning_rate": 0.01}
    path.write_text(yaml.safe_dump({**tree, "training": training, "schedule": {"stop": {"from": 0.1, "to": 1.0}}}))

    def comes_to(stop):
        return 0.1 + 0.5 * stop

    def fine_tuned(ready, *, noted, **_):
        schedule = ready.options["schedule"]
        for epoch in range(10):
            share = schedule.share(Moment(progress=epoch / 10))
            robust = share * comes_to(schedule.stop)
            noted({"epoch": epoch, "epsilon": 0.1 * share, "validation/clean": 0.9, "validation/robust": robust})

    monkeypatch.setattr("poise.commands.tune.fine_tuned", fine_tuned)
    poise.tune(path, trials=16, maximise="robust", out=tmp_path / "search", prune_after=0.3)
    trials = _trials(tmp_path / "search")
    finished, stopped = (
        [comes_to(trial.params["schedule.stop"]) for trial in trials if trial.state.name == state]
        for state in ("COMPLETE", "PRUNED")
    )
    assert stopped
    assert max(stopped) < max(finished)


def test_options_that_do_not_go_together_cost_a_trial_and_not_the_search(tmp_path, monkeypatch):
    path = tmp_path / "search.yaml"
    path.write_text(RECIPE.replace("start: 0.0", "start: {among: [0.5, 0.9]}").replace("[0.5, 1.0]", "[0.5]"))
    row = {"epoch": 0, "epsilon": 0.1, "validation/clean": 1.0}
    monkeypatch.setattr("poise.commands.tune.fine_tuned", lambda *_, noted, **__: noted(row))
    poise.tune(path, trials=6, maximise="clean", out=tmp_path / "search", seed=1)
    reasons = {trial.state.name: trial.user_attrs.get("reason", "") for trial in _trials(tmp_path / "search")}
    assert reasons["COMPLETE"] == ""
    assert "a hinge needs 0 <= start <= stop <= 1" in reasons["PRUNED"]


def test_options_that_the_network_does_not_allow_cost_a_trial_and_not_the_search(recipe, tmp_path, monkeypatch):
    transfer = {"kind": "last", "blocks": {"from": 1, "to": 6}}
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(RECIPE), "transfer": transfer}))
    row = {"epoch": 0, "epsilon": 0.1, "validation/clean": 1.0}
    monkeypatch.setattr("poise.commands.tune.fine_tuned", lambda *_, noted, **__: noted(row))
    poise.tune(recipe, trials=6, maximise="clean", out=tmp_path / "search")
    for trial in _trials(tmp_path / "search"):
        blocks = trial.params["transfer.blocks"]
        told = f"this network has 3 blocks before its head; got {blocks}" if blocks > 3 else ""
        assert (trial.state.name, trial.user_attrs.get("reason", "")) == ("PRUNED" if told else "COMPLETE", told)
    assert {trial.state.name for trial in _trials(tmp_path / "search")} == {"COMPLETE", "PRUNED"}


def test_what_no_trial_can_do_any_more_ends_the_search(recipe, tmp_path, monkeypatch):
    from poise.commands.finetune import prepared

    row, calls = {"epoch": 0, "epsilon": 0.1, "validation/clean": 1.0}, []

    def prepared_at_first(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 2:
            raise Misuse("the data is gone")
        return prepared(*arguments, **options)

    monkeypatch.setattr("poise.commands.tune.prepared", prepared_at_first)
    monkeypatch.setattr("poise.commands.tune.fine_tuned", lambda *_, noted, **__: noted(row))
    with pytest.raises(Misuse, match="the data is gone"):
        poise.tune(recipe, trials=6, maximise="clean", out=tmp_path / "search")
    assert [trial.state.name for trial in _trials(tmp_path / "search")] == ["COMPLETE", "FAIL"]


@pytest.mark.parametrize("stop", [{"from": 0.1, "to": 1.0}, {"among": [0.1, 1.0]}])
def test_a_ramp_may_start_after_the_earliest_stop(recipe, stop):
    schedule = {"kind": "hinge", "start": {"from": 0.2, "to": 0.5}, "stop": stop}
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(RECIPE), "schedule": schedule}))
    assert [str(each) for each in poise.rehearse("tune", recipe=recipe, maximise="clean").works]


def _started(recipe: Path, out: Path, trials: int) -> subprocess.Popen[str]:
    words = ["tune", str(recipe), "--trials", str(trials), "--maximise", "clean", "--prune_after", "1"]
    words += ["--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "poise", *words], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_share_a_study_and_do_not_try_the_same(recipe, tmp_path):
    both = [_started(recipe, tmp_path / "search", 4) for _ in range(2)]
    for process in both:
        _, told = process.communicate(timeout=600)
        assert process.returncode == 0, told
    trials = _trials(tmp_path / "search")
    assert 4 <= len(trials) <= 5
    assert len({trial.params["training.learning_rate"] for trial in trials}) == len(trials)


def test_a_killed_trial_is_taken_up_where_it_stood(tmp_path, monkeypatch):
    path, out = tmp_path / "search.yaml", tmp_path / "search"
    path.write_text(RECIPE.replace("epochs: 3", "epochs: 15"))
    process = _started(path, out, 1)
    while process.poll() is None and not list(out.glob("trials/00000/checkpoints/epoch-0000[2-9]*/position.json")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = len(RunFolder(out / "trials" / "00000").history())
    assert 0 < done < 15
    monkeypatch.setattr(studies, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(studies, "GRACE_SECONDS", 1)
    poise.tune(path, trials=1, maximise="clean", out=out, prune_after=1)
    first, second = _trials(out)
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    assert second.params == first.params
    assert [place.name for place in (out / "trials").iterdir()] == ["00000"]
    whole = finetune(**_options(out / "trials" / "00000" / "recipe.yaml", tmp_path / "whole"))
    assert whole.history()[-1]["validation/clean"] == second.value


def _left_running(out: Path) -> tuple:
    """A trial that a process is at, which has just said so."""
    out.mkdir()
    storage = optuna.storages.RDBStorage(f"sqlite:///{out / 'study.db'}")
    study = optuna.create_study(study_name="poise", storage=storage, direction="maximize")
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    return storage, trial._trial_id


def test_a_trial_whose_process_is_silent_is_waited_for_and_taken_up(recipe, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(studies, "GRACE_SECONDS", 2)
    row = {"epoch": 0, "epsilon": 0.1, "validation/clean": 1.0}
    monkeypatch.setattr("poise.commands.tune.fine_tuned", lambda *_, noted, **__: noted(row))
    _left_running(tmp_path / "search")
    poise.tune(recipe, trials=1, maximise="clean", out=tmp_path / "search")
    assert [trial.state.name for trial in _trials(tmp_path / "search")] == ["FAIL", "COMPLETE"]
    assert "waiting for 1 trial that another process may still be at, at most 2 s" in capfd.readouterr().err


def test_a_trial_whose_process_lives_is_left_to_it(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "GRACE_SECONDS", 2)
    storage, living = _left_running(tmp_path / "search")
    monkeypatch.setattr(studies.time, "sleep", lambda _: storage.record_heartbeat(living))
    with pytest.raises(Failure, match=r"none of 0 trials .*; other processes are at 1 more"):
        poise.tune(recipe, trials=1, maximise="clean", out=tmp_path / "search")
    assert [trial.state.name for trial in _trials(tmp_path / "search")] == ["RUNNING"]


@pytest.mark.parametrize("told", [False, True])
def test_a_trial_interrupted_after_its_last_epoch_keeps_its_figure(recipe, tmp_path, monkeypatch, told):
    from poise.commands.finetune import fine_tuned

    errors = []

    def interrupted(ready, *, noted, **options):
        def last(row):
            if told or row["epoch"] < 2:
                noted(row)
            if row["epoch"] == 2:
                raise KeyboardInterrupt

        return fine_tuned(ready, noted=last, **options)

    handler = logging.Handler()
    handler.emit = errors.append
    monkeypatch.setattr(logging.getLogger("optuna"), "handlers", [handler])
    out = tmp_path / "search"
    options = {"trials": 1, "maximise": "clean", "where": "clean >= 0", "out": out}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("poise.commands.tune.fine_tuned", interrupted)
        poise.tune(recipe, **options)
    assert not errors
    poise.tune(recipe, **options)
    first, second = _trials(out)
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    history = RunFolder(out / "trials" / "00000").history()
    assert second.value == history[-1]["validation/clean"]
    assert second.intermediate_values == {row["epoch"]: row["validation/clean"] for row in history}


def test_the_same_command_goes_on_without_being_told_where(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row = {"epoch": 0, "epsilon": 0.1, "validation/clean": 1.0}
    monkeypatch.setattr("poise.commands.tune.fine_tuned", lambda *_, noted, **__: noted(row))

    def tuned(**options):
        return poise.tune(recipe, **{"trials": 1, "maximise": "clean", **options}).parent.as_posix()

    assert tuned() == "runs/tune"
    assert tuned(seed=1) == "runs/tune-2"
    assert tuned(trials=2) == "runs/tune"
    assert tuned(trials=2) == "runs/tune-3"
    assert [len(_trials(Path("runs") / name)) for name in ("tune", "tune-2", "tune-3")] == [2, 1, 2]
    assert tuned(storage="runs/elsewhere.db") == "runs/tune-4"
    assert tuned(storage="runs/elsewhere.db") == "runs/tune-4"


def _options(recipe: Path, out: Path) -> dict:
    from poise.commands.parsing import options_of

    return options_of("finetune", {**read_recipe(recipe), "out": str(out)})


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"model": None}, {}, "missing: --model"),
        ({"validate_on": 0}, {}, "give the recipe a validate_on above 0"),
        ({"limits": 3}, {}, "limits"),
        ({"training": {"epochs": {"from": 0, "to": 2}}}, {}, "epochs must be a whole number of at least 1; got 0"),
        ({"data": "folder:nowhere"}, {}, "nowhere"),
        ({"transfer": {"kind": "last", "blocks": {"from": 5, "to": 6}}}, {}, "this network has 3 blocks .* got 5"),
        ({}, {"suite": "fst", "maximise": "clean"}, "unknown suite 'fst'; did you mean 'fast'"),
        ({}, {"trials": 0}, "trials must be at least 1"),
        ({}, {"prune_after": 2.0}, "prune_after is a share of the epochs"),
        ({}, {"maximise": "robst"}, "unknown figure 'robst'; valid: expected, clean"),
        ({}, {"storage": "nosuchdatabase://x"}, "the study at nosuchdatabase://x cannot be opened"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_folder_exists(recipe, tmp_path, changes, options, words):
    tree = {key: value for key, value in {**yaml.safe_load(RECIPE), **changes}.items() if value is not None}
    recipe.write_text(yaml.safe_dump(tree))
    with pytest.raises(Misuse, match=words):
        poise.tune(recipe, out=tmp_path / "search", **options)
    assert list(tmp_path.iterdir()) == [recipe]
