from __future__ import annotations

import subprocess

import pytest

from benchmarks import harness, run
from benchmarks.harness import SHORT, Claim, conclude, profiled
from poise.core.misuse import Misuse


@pytest.fixture
def called(monkeypatch):
    """Benchmarks that are called, with the codes that they end with."""
    codes, modules = {}, []
    monkeypatch.setattr(run, "check_data", lambda _: None)
    monkeypatch.setattr(run, "ran", lambda *words: modules.append(words) or codes.get(words[0], 0))
    monkeypatch.setattr("sys.argv", ["run", "evidence", "--scale", "small", "--data", "there", "--jobs", "2"])
    return codes, modules


def test_a_figure_that_falls_short_does_not_hold_up_the_others(called):
    codes, modules = called
    codes["updates"] = SHORT
    assert run.main() == 0
    assert [words[0] for words in modules] == [*run.QUESTIONS, "evidence"]
    assert modules[0] == ("transfer", "--scale", "small", "--data", "there", "--jobs", "2")


@pytest.mark.parametrize("code", [1, 2, 130, -9])
def test_a_benchmark_that_breaks_off_ends_the_run_before_the_page(called, code):
    codes, modules = called
    codes["updates"] = code
    assert run.main() == code
    assert [words[0] for words in modules] == ["transfer", "updates"]


@pytest.mark.parametrize("address", ["torchvison:CIFAR10", "folder:nowhere", "digits"])
def test_data_that_cannot_be_meant_are_refused_before_anything_runs(monkeypatch, address):
    monkeypatch.setattr(run, "ran", lambda *_: pytest.fail("a benchmark began"))
    monkeypatch.setattr("sys.argv", ["run", "costs", "--data", address])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert ended.value.code == 2


def test_every_benchmark_of_the_plan_is_a_module():
    from importlib.util import find_spec

    for module, *_ in [*run.QUESTIONS.values(), *run.COSTS.values()]:
        assert find_spec(f"benchmarks.{module}"), module


def test_a_result_is_kept_and_says_whether_it_falls_short(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.harness.RESULTS", tmp_path)
    good, bad = Claim("a", 2.0, 1.0), Claim("b", 2.0, 1.0, most=True, interval=(0.5, 3.0))
    assert conclude("test", [good], {"x": 1}, "small") == 0
    assert conclude("test", [good, bad], {"x": 1}, "small") == SHORT
    (kept,) = tmp_path.glob("test-small.*.json")
    assert '"holds": false' in kept.read_text()
    assert "claim b: 2 [0.5, 3] (at most 1) falls short" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variant", "kept"), [("", "test-quick"), ("cifar10", "test-cifar10-quick"), ("quick", "test-quick")]
)
def test_a_quick_look_takes_no_full_results_place(tmp_path, monkeypatch, variant, kept):
    monkeypatch.setattr("benchmarks.harness.RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["test", "--quick"])
    conclude("test", [], {}, variant)
    assert [path.name.split(".")[0] for path in tmp_path.iterdir()] == [kept]


def test_a_result_names_its_commit_and_says_where_code_differs_from_it(tmp_path, monkeypatch):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr("benchmarks.harness.ROOT", tmp_path)
    assert harness._commit() == ""
    for place in ("benchmarks/results/a.json", "docs/page.md", "src/code.py"):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text("1")
    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    head = git("rev-parse", "--short=10", "HEAD")
    for place, named in (("benchmarks/results/a.json", head), ("docs/page.md", head), ("src/code.py", f"{head}+")):
        (tmp_path / place).write_text("2")
        assert harness._commit() == named, place


def test_a_profile_of_another_model_or_with_other_options_is_not_taken_up(tmp_path):
    import poise
    from poise.models import save_model

    addresses = []
    for seed in (0, 1):
        network = poise.open_model(
            "small", weights="random", classes=tuple(map(str, range(10))), shape=(1, 8, 8), seed=seed
        )
        (tmp_path / str(seed)).mkdir()
        save_model(network, tmp_path / str(seed))
        addresses.append(f"run:{tmp_path / str(seed)}")
    threat = poise.Threat(epsilon=0.01)
    options = {"out": tmp_path / "p.parquet", "threat": threat, "points": [], "suite": "fast", "soundness": False}
    first = profiled(addresses[0], "digits", limit=4, **options)
    assert profiled(addresses[0], "digits", limit=4, **options).ids == first.ids
    for address, changed, what in (
        (addresses[1], {}, "model"),
        (addresses[0], {"limit": 5}, "count of images"),
        (addresses[0], {"suite": "apgd"}, "suite"),
        (addresses[0], {"points": None}, "grid"),
        (addresses[0], {"threat": poise.Threat(epsilon=0.02)}, "threat"),
        (addresses[0], {"seed": 1}, "seed"),
    ):
        with pytest.raises(Misuse, match=f"made with another {what}"):
            profiled(address, "digits", **({"limit": 4} | options | changed))
