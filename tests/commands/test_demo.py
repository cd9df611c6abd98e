"""`poise demo` up to the page itself, which tests/browser opens."""

from __future__ import annotations

import socket
from unittest.mock import Mock

import pytest

import poise
from poise.cli import main
from poise.models import load_model, open_model, save_model
from poise.models.mixing import Blend, MixedClassifier, Sharpening

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a mixture that nobody trained."""
    folder = tmp_path_factory.mktemp("demo") / "mixed"
    branches = [open_model("small", weights="random", classes=DIGITS, shape=(1, 8, 8), seed=seed) for seed in (0, 1)]
    save_model(MixedClassifier.of(*branches, 0.7), folder)
    (folder / "recipe.yaml").write_text("data: digits\nthreat: {norm: l2, epsilon: 0.5}\nlimit: 40\n")
    return folder


@pytest.fixture
def gradio_there(monkeypatch):
    """The command without its page needs no gradio; it only looks whether it could be imported."""
    monkeypatch.setattr("poise.commands.demo.find_spec", lambda _: object())


@pytest.mark.usefixtures("gradio_there")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--steps 0", "steps must be at least 1"),
        ("--timeout 0", "timeout is a number of seconds above 0"),
        ("--megabytes -1", "megabytes must be a number above 0"),
        ("--images 0", "at least 1 image"),
        ("--samples 3", "samples must be at least 100"),
        ("--threat.epsilon 0", "threat above 0"),
        ("--port 99999", "a port is a number from 0 to 65535"),
        ("--host 203.0.113.7 --port 0", "cannot listen on 203.0.113.7:0"),
        ("--split tset", "did you mean 'test'"),
        ("--data folder:nowhere", "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_leaves_nothing(run, tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main(["demo", str(run), *words.split()]) == 2
    told = capsys.readouterr().err.strip()
    assert line in told
    assert "\n" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("gradio_there")
def test_a_port_in_use_is_one_line(run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["demo", str(run), "--port", str(taken.getsockname()[1])]) == 2
    assert "address already in use; choose another --port" in capsys.readouterr().err


def test_without_gradio_it_says_what_to_install(run, monkeypatch, capsys):
    monkeypatch.setattr("poise.commands.demo.find_spec", lambda _: None)
    assert main(["demo", str(run)]) == 2
    assert "pip install 'poise[demo]'" in capsys.readouterr().err


@pytest.mark.usefixtures("gradio_there")
@pytest.mark.parametrize("wait", [True, False])
def test_it_shows_the_runs_images_under_its_threat_and_waits_unless_told_otherwise(run, monkeypatch, capsys, wait):
    served, asked = Mock(spec=["wait"], address="http://127.0.0.1:9"), []
    monkeypatch.setattr("poise.commands.demo.serve", lambda *arguments: asked.append(arguments) or served)
    assert poise.demo(str(run), images=3, wait=wait, timeout=4) is served
    ((exhibit, title, host, port),) = asked
    assert (host, port) == ("127.0.0.1", 7860)
    assert title == f"poise demo: {run}"
    assert (exhibit.threat, len(exhibit.images), exhibit.timeout) == (poise.Threat(norm="l2", epsilon=0.5), 3, 4)
    assert (exhibit.certification.method, exhibit.certification.norm) == ("local", "l2")
    assert exhibit.mixture.alpha_low == 0.7
    assert served.wait.called == wait
    assert f"http://127.0.0.1:9 shows run:{run}" in capsys.readouterr().err


@pytest.mark.usefixtures("gradio_there")
def test_naming_a_part_of_the_threat_keeps_the_runs_other_part(run, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "poise.commands.demo.serve", lambda *arguments: asked.append(arguments) or Mock(spec=["wait", "address"])
    )
    assert main(["demo", str(run), "--threat.epsilon", "0.25", "--host", "0.0.0.0"]) == 0  # noqa: S104 - nothing listens
    assert asked[0][0].threat == poise.Threat(norm="l2", epsilon=0.25)


@pytest.mark.usefixtures("gradio_there")
def test_a_mixture_with_a_nonlinearity_is_shown_without_radii(run, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(
        "poise.commands.demo.serve", lambda *arguments: asked.append(arguments) or Mock(spec=["wait", "address"])
    )
    sharpening = Sharpening(scale=1.0, power=2.0, shift=-0.5)
    sharp = load_model(run).blended(Blend(alpha_low=0.6, alpha_high=0.6, sharpening=sharpening))
    save_model(sharp, tmp_path / "sharp")
    assert main(["demo", f"run:{tmp_path / 'sharp'}", "--data", "digits", "--limit", "30"]) == 0
    assert asked[0][0].certification is None
    assert "no certified radii: nothing is proven of a mixture with a nonlinearity" in capsys.readouterr().err
