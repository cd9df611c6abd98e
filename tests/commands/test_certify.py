"""`poise certify`: radii join profiles, smoothed classifiers get runs of their own."""

from __future__ import annotations

import numpy as np
import pytest

import poise
from poise.cli import main
from poise.evaluation import certified_curve, read_profile
from poise.models import Smoothed, load_model
from poise.schedules import Fixed


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return poise.finetune(
        "small",
        threat=poise.Threat(epsilon=0.1),
        schedule=Fixed(),
        training=poise.Training(epochs=3, batch_size=64),
        limit=200,
        validate_on=0,
        trackers=(),
        augmentation="none",
        out=tmp_path_factory.mktemp("certify") / "run",
    )


def test_radii_join_what_attacks_found_and_the_report(run, tmp_path, capsys):
    poise.profile(run.address, suite="fast", limit=20, points=[0.001, 0.01], soundness=False)
    assert main(["certify", run.address, "--limit", "20", "--method", "lipschitz"]) == 0
    found = run.profile()
    assert found.epsilons == (0, 0.001, 0.01, 0.1)
    assert found.certificate.norm == "linf"
    assert (found.certificate.radii > 0).any()
    assert found.findings[-1].check == "certified-broken"
    assert found.findings[-1].status == "pass"
    levels = np.array([each.value for each in certified_curve(found).accuracy])
    assert (levels <= found.robust().mean(0)).all()
    assert "certified accuracy" in capsys.readouterr().err
    assert main(["report", str(run.path), "--out", str(tmp_path / "r.html")]) == 0
    assert "certified" in (tmp_path / "r.html").read_text()
    assert main(["certify", run.address, "--limit", "20", "--norm", "l2"]) == 2
    assert "is a profile in linf" in capsys.readouterr().err
    assert main(["certify", run.address, "--limit", "10"]) == 2
    assert "other images" in capsys.readouterr().err


@pytest.mark.parametrize(("method", "sizes"), [("lipschitz", [3, 3, 1]), ("local", [7])])
def test_the_batch_size_is_that_of_the_images_at_a_time(run, tmp_path, monkeypatch, method, sizes):
    from poise.evaluation.certificates.deterministic import Bounded

    seen, radii = [], Bounded.radii
    monkeypatch.setattr(
        Bounded, "radii", lambda self, images, **k: seen.append(len(images)) or radii(self, images, **k)
    )
    options = {"largest": 0.001} if len(sizes) == 1 else {"batch_size": 3}
    poise.certify(run.address, limit=7, method=method, out=tmp_path / "p.parquet", **options)
    assert seen == sizes


@pytest.mark.parametrize("soundness", [True, False])
def test_a_profile_made_anew_keeps_the_certificate_of_the_one_it_replaces(run, tmp_path, soundness, capsys):
    out = tmp_path / "p.parquet"
    words = {"suite": "fast", "points": [0.01], "out": out, "overwrite": True}
    poise.certify(run.address, limit=20, norm="linf", method="lipschitz", out=out)
    proof = read_profile(out).certificate
    capsys.readouterr()
    found = poise.profile(run.address, limit=20, soundness=soundness, **words)
    assert ("; soundness not checked" in capsys.readouterr().err) == (not soundness)
    assert found.epsilons == (0, 0.01, 0.1)
    assert np.array_equal(read_profile(out).certificate.radii, proof.radii)
    assert [finding.check for finding in read_profile(out).findings].count("certified-broken") == 1
    assert poise.profile(run.address, limit=10, soundness=soundness, **words).certificate is None
    assert "is gone with it; poise certify makes a new one" in capsys.readouterr().err


def test_a_profile_in_another_norm_does_not_cost_the_certificate(run, tmp_path, capsys):
    out = tmp_path / "p.parquet"
    poise.certify(run.address, limit=8, method="lipschitz", out=out)
    kept = out.read_bytes()
    words = ["profile", run.address, "--suite", "fast", "--limit", "8", "--out", str(out), "--overwrite"]
    assert main(words) == 2
    assert "holds a certificate in l2" in (told := capsys.readouterr().err)
    assert "attack in l2 (--threat.norm l2)" in told
    assert out.read_bytes() == kept
    assert main([*words, "--threat.norm", "l2", "--threat.epsilon", "0.2", "--soundness", "false"]) == 0
    assert read_profile(out).certificate is not None


def test_a_smoothed_run_is_attacked_and_mixed_under_the_threat_of_the_run_it_smooths(run, tmp_path):
    poise.certify(run.address, sigma=0.1, samples=100, selection=10, limit=4, out=tmp_path / "smoothed")
    smoothed = f"run:{tmp_path / 'smoothed'}"
    found = poise.profile(smoothed, suite="fast", limit=4, soundness=False, out=tmp_path / "p.parquet")
    assert (found.header.norm, found.epsilons[-1]) == ("linf", 0.1)
    mixed = poise.mix(run.address, smoothed, alpha=0.8, limit=100, out=tmp_path / "mixed")
    assert mixed.recipe()["threat"] == run.recipe()["threat"]


def test_what_stands_there_and_is_no_profile_is_replaced_on_request(run, tmp_path):
    out = tmp_path / "p.parquet"
    out.write_bytes(b"no parquet")
    made = poise.profile(run.address, suite="fast", points=[], limit=5, soundness=False, out=out, overwrite=True)
    assert np.array_equal(read_profile(out).broken_from, made.broken_from)


def test_a_smoothed_classifier_gets_a_run_of_its_own_and_an_interruption_goes_on(run, tmp_path, monkeypatch, capsys):
    words = ["certify", run.address, "--sigma", "0.1", "--samples", "200", "--limit", "20"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*words, "--out", str(whole)]) == 0
    assert isinstance(load_model(whole).network, Smoothed)
    expected = read_profile(whole / "profile.parquet")
    assert expected.header.model == load_model(whole).digest() != load_model(run.path).digest()
    assert expected.certificate.facts["sigma"] == 0.1
    from poise.evaluation.certificates import certification

    sampled, calls = certification.sampled, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return sampled(*arguments)

    monkeypatch.setattr(certification, "sampled", failing)
    assert main([*words, "--out", str(cut)]) == 130
    assert not (cut / "profile.parquet").exists()
    monkeypatch.setattr(certification, "sampled", sampled)
    assert main([*words, "--out", str(cut), "--seed", "4"]) == 2
    assert "was started with seed 0" in capsys.readouterr().err
    assert main([*words, "--out", str(cut), "--vote", "hard"]) == 0  # the default, said
    assert np.array_equal(read_profile(cut / "profile.parquet").certificate.radii, expected.certificate.radii)
    assert not list(cut.glob("*.certificate"))
    assert main([*words, "--out", str(cut)]) == 2
    assert "certified already" in capsys.readouterr().err


def test_the_same_command_goes_on_without_being_told_where(run, tmp_path, monkeypatch, capsys):
    from poise.evaluation.certificates import certification

    monkeypatch.chdir(tmp_path)
    words = ["certify", run.address, "--sigma", "0.1", "--samples", "200", "--limit", "5"]
    with monkeypatch.context() as patch:
        patch.setattr(certification, "sampled", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(words) == 130
    (tmp_path / "runs" / "smoothed" / "model.safetensors").unlink()  # killed before it stood
    assert main([*words, "--seed", "1"]) == 0  # another command has a folder of its own
    assert main(words) == 0
    assert "going on" not in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["smoothed", "smoothed-2"]
    assert main(words) == 0
    with monkeypatch.context() as patch:
        patch.setattr(certification, "sampled", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*words, "--limit", "4"]) == 130
    assert main([*words, "--limit", "4"]) == 0
    assert "runs/smoothed-4: going on where it was interrupted" in capsys.readouterr().err
    found = [read_profile(tmp_path / "runs" / name / "profile.parquet") for name in ("smoothed", "smoothed-3")]
    assert np.array_equal(found[0].certificate.radii, found[1].certificate.radii)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--sigma 0.1 --method local", "leave one of them out"),
        ("--sigma 0", "sigma"),
        ("--method smoothing", "not smoothed"),
        ("--samples 5", "samples must be at least 100"),
        ("--confidence 1", "strictly between 0 and 1"),
        ("--largest -1", "radius above 0"),
        ("--largest 1 --method lipschitz", "lipschitz does not search"),
        ("--largest 1 --sigma 0.1", "smoothing does not search"),
        ("--vote soft", "there is no --sigma"),
        ("--vote hard --method local", "there is no --sigma"),
        ("--batch_size 0", "batch_size must be at least 1"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(run, tmp_path, monkeypatch, capsys, words, line):
    monkeypatch.chdir(tmp_path)
    out = "new" if "--sigma" in words else "new.parquet"
    assert main(["certify", run.address, "--limit", "10", *words.split(), "--out", out]) == 2
    told = capsys.readouterr().err.strip()
    assert line in told
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def test_what_a_certificate_cannot_be_kept_in_is_said_before_anything_is_opened(run, tmp_path, capsys):
    words = ["certify", run.address, "--data", f"folder:{tmp_path / 'absent'}", "--out", str(tmp_path / "new.csv")]
    assert main(words) == 2
    assert "ends in .parquet" in capsys.readouterr().err
    assert main([*words[:-1], str(tmp_path / "new.parquet"), "--sigma", "0.1"]) == 2
    assert "--out is the run folder to create" in capsys.readouterr().err


def test_what_foreign_code_builds_is_not_smoothed_into_a_run_that_nothing_could_open(run, tmp_path, capsys):
    words = ["certify", "python:tests.models.factories:digits_network", "--data", "digits", "--sigma", "0.25"]
    assert main([*words, "--samples", "200", "--limit", "5", "--out", str(tmp_path / "smoothed")]) == 2
    assert "nothing that is made of it can be kept" in capsys.readouterr().err
    assert not (tmp_path / "smoothed").exists()


def test_a_certificate_is_replaced_only_where_that_is_asked_for(run, tmp_path, capsys):
    words = ["certify", run.address, "--limit", "5", "--out", str(tmp_path / "p.parquet"), "--norm", "l2"]
    assert main([*words, "--method", "local", "--largest", "0.01"]) == 0
    kept = (tmp_path / "p.parquet").read_bytes()
    assert main([*words, "--method", "lipschitz"]) == 2
    assert "holds a certificate already (local, l2" in capsys.readouterr().err
    assert (tmp_path / "p.parquet").read_bytes() == kept
    assert main([*words, "--method", "lipschitz", "--overwrite"]) == 0
    assert read_profile(tmp_path / "p.parquet").certificate.method == "lipschitz"


def test_a_mixture_that_nothing_can_be_proven_of_is_told_so(run, tmp_path, capsys):
    mixed = poise.mix(run.address, run.address, "digits", alpha=0.3, limit=200, out=tmp_path / "mixed")
    capsys.readouterr()
    assert main(["certify", mixed.address, "--limit", "5"]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing is proven of any; only above an alpha of 1/2 must a mixture follow its robust branch" in told
    assert main(["report", str(mixed.path), "--out", str(tmp_path / "r.html")]) == 0
    assert "Nothing is proven of mixed" in (tmp_path / "r.html").read_text()


def test_a_smoothed_classifier_is_not_exported_and_its_own_resumption_is_named(run, tmp_path, capsys):
    words = ["certify", run.address, "--sigma", "0.25", "--limit", "3", "--samples"]
    assert main([*words, "100", "--out", str(tmp_path / "s")]) == 0
    capsys.readouterr()
    assert main(["export", f"run:{tmp_path / 's'}"]) == 2
    assert "averages over random noise" in capsys.readouterr().err
    assert not (tmp_path / "s" / "model.onnx").exists()
    (tmp_path / "s" / "profile.parquet").unlink()
    assert main([*words, "200", "--out", str(tmp_path / "s")]) == 2
    told = capsys.readouterr().err
    assert "was started with samples 100, not 200" in told
    assert "--resume" not in told


def test_training_under_noise_is_what_smoothing_wants(tmp_path, capsys):
    def certified(name, objective):
        run = poise.finetune(
            "small",
            objective=objective,
            schedule=Fixed(),
            training=poise.Training(epochs=12, learning_rate=5e-3),
            limit=1000,
            validate_on=0,
            trackers=(),
            augmentation="none",
            out=tmp_path / name,
        )
        found = poise.certify(run.address, sigma=0.5, samples=500, limit=60, out=tmp_path / f"{name}-smoothed")
        assert ("was trained without noise" in capsys.readouterr().err) == (name == "plain")
        return (found.certificate.radii > 0.4).mean()

    assert certified("noisy", poise.Noisy(sigma=0.5)) > certified("plain", poise.Standard()) + 0.2
