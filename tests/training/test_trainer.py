from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from poise.attacks import FGSM, PGD
from poise.core.folding import Shadow
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.objectives import AWP, MART, TRADES, Adversarial, Averaged, Guarded, Objective, Standard
from poise.schedules import Adaptive, Automatic, Cosine, Fixed, Hinge, Linear, Random
from poise.training import Diverged, Task, Training, check_task, goes_on, train
from poise.training.trainer import _Loop
from tests.models_for_tests import random_images, small_network

OPTIONS = Training(epochs=4, batch_size=16, learning_rate=1e-2)


def _task(
    seed: int = 0, options: Training = OPTIONS, objective: Objective | None = None, schedule=None, references=None
) -> Task:
    classifier = small_network()
    return Task(
        classifier,
        random_images(small_network(seed=9).eval(), 50),
        objective or Adversarial(attack=PGD(steps=2)),
        schedule or Hinge(),
        Threat(epsilon="0.1"),
        options,
        "flip",
        seed,
        references or {},
    )


def _folder(path) -> RunFolder:
    return RunFolder.create(path)


def _weights(task: Task) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in task.classifier.state_dict().items()}


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def _trained(path, **changes) -> dict[str, torch.Tensor]:
    task = _task(**changes)
    train(task, _folder(path), trackers=())
    return _weights(task)


def test_training_learns_what_there_is_to_learn(tmp_path):
    task = _task(objective=Standard(), options=Training(epochs=30, batch_size=16, learning_rate=1e-2))
    folder = _folder(tmp_path / "run")
    train(task, folder, trackers=())
    history = folder.history()
    assert history[-1]["train/accuracy"] > 0.9 > history[0]["train/accuracy"]
    assert history[-1]["train/loss"] < 0.5 * history[0]["train/loss"]


def test_the_budget_in_the_metrics_is_the_schedules(tmp_path):
    folder = _folder(tmp_path / "run")
    train(_task(schedule=Hinge(start=0.25, stop=0.75)), folder, trackers=())
    assert [row["epsilon"] for row in folder.history()] == pytest.approx([0, 0, 0.05, 0.1])
    assert [row["epoch"] for row in folder.history()] == [0, 1, 2, 3]


class _Recorder(Standard):
    """Notes the budgets that steps are given."""

    seen: ClassVar[list[float]] = []

    def terms(self, step):
        self.seen.append(step.epsilon)
        return super().terms(step)


def test_a_schedule_may_move_every_step(tmp_path):
    _Recorder.seen.clear()
    options = Training(epochs=2, batch_size=16)
    train(
        _task(objective=_Recorder(), schedule=Hinge(start=0.0, stop=1.0, every="step"), options=options),
        _folder(tmp_path / "run"),
        trackers=(),
    )
    assert _Recorder.seen == pytest.approx([0.1 * step / 7 for step in range(8)])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    first, again, other = (_trained(tmp_path / str(i), seed=seed) for i, seed in enumerate((3, 3, 4)))
    assert _same(first, again)
    assert not _same(first, other)


class _Killed(Exception):  # noqa: N818
    pass


@pytest.mark.parametrize("kill_at", [1, 4, 6, 7, 11, 15])
def test_a_run_cut_off_anywhere_and_resumed_ends_with_the_same_weights(tmp_path, kill_at):
    """Four batches an epoch and a checkpoint every three steps: cuts fall before, on, and after checkpoints."""
    options = Training(epochs=4, batch_size=16, learning_rate=1e-2, checkpoint_every=3)
    whole = _trained(tmp_path / "whole", options=options)
    folder, steps = _folder(tmp_path / "cut"), 0

    def kill(share, facts):
        nonlocal steps
        steps += 1
        if steps == kill_at:
            raise _Killed

    with pytest.raises(_Killed):
        train(_task(options=options), folder, trackers=(), watch=kill)
    resumed = _task(options=options)
    train(resumed, folder, trackers=())
    assert _same(_weights(resumed), whole)
    first, second = RunFolder(tmp_path / "whole").history(), folder.history()
    drop = lambda rows: [{key: value for key, value in row.items() if key != "seconds"} for row in rows]  # noqa: E731
    assert drop(first) == drop(second)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_resumed_run_in_another_memory_layout_ends_with_the_same_weights(tmp_path, optimizer):
    """Optimisers may step through memory in its order: what they remember must lie as the weights do."""
    rate = 1e-2 if optimizer == "adamw" else 0.1
    options = Training(
        epochs=2, batch_size=16, learning_rate=rate, optimizer=optimizer, channels_last=True, checkpoint_every=3
    )

    def coloured() -> Task:
        teacher = small_network((3, 6, 6), seed=9).eval()
        return replace(_task(options=options), classifier=small_network((3, 6, 6)), images=random_images(teacher, 50))

    def kill(share, facts):
        if share > 0.5:
            raise _Killed

    whole, cut, resumed = coloured(), coloured(), coloured()
    train(whole, _folder(tmp_path / "whole"), trackers=())
    folder = _folder(tmp_path / "cut")
    with pytest.raises(_Killed):
        train(cut, folder, watch=kill, trackers=())
    train(resumed, folder, trackers=())
    assert _same(_weights(resumed), _weights(whole))


def test_an_epoch_whose_validation_fails_is_not_trained_again(tmp_path):
    folder, steps = _folder(tmp_path / "run"), []

    def validate(classifier, epsilon):
        if len(steps) == 8:
            raise _Killed
        return _accuracy(classifier, epsilon)

    def count(share, facts):
        steps.append(share)

    with pytest.raises(_Killed):
        train(_task(), folder, validate=validate, watch=count, trackers=())
    steps.append("resumed")
    resumed, whole = _task(), _task()
    train(resumed, folder, validate=validate, watch=count, trackers=())
    train(whole, _folder(tmp_path / "whole"), validate=_accuracy, trackers=())
    assert len(steps) == 1 + 4 * 4
    assert _same(_weights(resumed), _weights(whole))
    drop = lambda rows: [{key: value for key, value in row.items() if key != "seconds"} for row in rows]  # noqa: E731
    assert drop(folder.history()) == drop(RunFolder(tmp_path / "whole").history())


@pytest.mark.parametrize(
    "objective",
    [
        Adversarial(attack=PGD(steps=2, model_mode="train")),
        TRADES(attack=PGD(steps=2, model_mode="train")),
        MART(attack=PGD(steps=2, model_mode="train")),
        Guarded(judge=PGD(steps=2, model_mode="train"), every=1),
        AWP(objective=TRADES(attack=PGD(steps=2, model_mode="train"))),
    ],
    ids=repr,
)
def test_every_objective_trains_on_images_attacked_in_train_mode(tmp_path, objective):
    task = _task(objective=objective, schedule=Fixed(), options=replace(OPTIONS, epochs=1))
    folder = _folder(tmp_path / "run")
    train(task, folder, trackers=())
    assert torch.isfinite(torch.tensor(folder.history()[-1]["train/loss"]))


class _Masked(torch.nn.Module):
    """Adds a mask of minus infinity where nothing is to be seen, as causal attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))

    def forward(self, logits):
        return logits + self.mask.softmax(1).sum(0)


@pytest.mark.parametrize("objective", [Standard(), Averaged(objective=Standard())], ids=["plain", "averaged"])
def test_a_mask_of_infinities_is_no_divergence_and_a_weight_that_is_one_is(tmp_path, objective):
    task = _task(objective=objective, options=replace(OPTIONS, epochs=1))
    task.classifier.network.append(_Masked())
    train(task, _folder(tmp_path / "run"), trackers=())
    broken = _task(objective=objective, options=replace(OPTIONS, epochs=1, learning_rate=1e30, warmup=0.0, clip=None))
    broken.classifier.network.append(_Masked())
    with pytest.raises(Diverged):
        train(broken, _folder(tmp_path / "broken"), trackers=())


def _accuracy(classifier, epsilon) -> dict[str, float]:
    """A validation that depends on the weights and falls as epsilon rises, as real ones do."""
    images = random_images(small_network(seed=9).eval(), 50)
    with torch.no_grad():
        clean = float((classifier.eval()(images.images(torch.arange(50))).argmax(1) == images.labels).float().mean())
    return {"clean": clean, "robust": clean / 2, "robust_now": clean * (1 - 5 * epsilon), "learned": 1.0}


@pytest.mark.parametrize(
    "schedule",
    [
        Linear(),
        Cosine(every="step"),
        Random(),
        Random(per_example=True, every="step"),
        Automatic(patience=1),
        Automatic(patience=2, every="step"),
        Adaptive(),
    ],
    ids=repr,
)
def test_every_schedule_resumes_to_the_same_weights(tmp_path, schedule):
    """Five epochs of four batches, cut off once within an epoch and once, resumed, within another."""
    options = Training(epochs=5, batch_size=16, learning_rate=1e-2, checkpoint_every=3)

    def trained(path, kill_at):
        folder, steps = RunFolder(path) if path.exists() else _folder(path), 0

        def kill(share, facts):
            nonlocal steps
            steps += 1
            if steps == kill_at:
                raise _Killed

        task = _task(options=options, schedule=schedule)
        try:
            train(task, folder, validate=_accuracy, watch=kill, trackers=())
        except _Killed:
            return trained(path, 7 if kill_at == 9 else None)
        return _weights(task), [row["epsilon"] for row in folder.history()]

    (whole, budgets), (cut, same) = trained(tmp_path / "whole", None), trained(tmp_path / "cut", 9)
    assert _same(whole, cut)
    assert budgets == same
    assert len(set(budgets)) > 1 or isinstance(schedule, Random)


def test_a_schedule_that_listens_needs_something_to_hear(tmp_path):
    with pytest.raises(Misuse, match="the schedule Automatic listens to validation; there is none"):
        train(_task(schedule=Automatic()), _folder(tmp_path / "run"), trackers=())
    with pytest.raises(Misuse, match="the schedule Adaptive needs robust_now, learned of the validation"):
        train(
            _task(schedule=Adaptive()),
            _folder(tmp_path / "other"),
            validate=lambda classifier, epsilon: {"clean": 0.5},
            trackers=(),
        )


def test_examples_may_have_budgets_of_their_own(tmp_path):
    _Recorder.seen.clear()
    options = Training(epochs=2, batch_size=16)
    folder = _folder(tmp_path / "run")
    train(_task(objective=_Recorder(), schedule=Random(per_example=True), options=options), folder, trackers=())
    budgets = torch.cat(_Recorder.seen)
    assert len(budgets.unique()) == len(budgets) == 100
    assert budgets.max() <= 0.1
    assert [row["epsilon"] for row in folder.history()] == pytest.approx([0.05, 0.05])


def test_a_finished_run_trains_no_further(tmp_path):
    task, folder = _task(), _folder(tmp_path / "run")
    train(task, folder, trackers=())
    again = _task()
    train(again, folder, trackers=())
    assert _same(_weights(task), _weights(again))
    assert len(folder.history()) == 4


def test_only_the_newest_checkpoint_is_kept_and_torn_ones_are_ignored(tmp_path):
    folder = _folder(tmp_path / "run")
    train(_task(), folder, trackers=())
    kept = [path.name for path in folder.checkpoints.iterdir()]
    assert kept == ["epoch-00004-batch-0000000"]
    torn = folder.checkpoints / "epoch-00009-batch-0000000"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    train(_task(), folder, trackers=())
    assert len(folder.history()) == 4


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path):
    folder = _folder(tmp_path / "run")
    train(_task(), folder, trackers=())
    other = _task()
    other.classifier.network[5] = torch.nn.Linear(288, 7)
    with pytest.raises(Misuse, match="epoch-00004-batch-0000000 does not fit this run"):
        train(other, folder, trackers=())


@pytest.mark.parametrize("torn", ["", '{"epoch": 4', '{"place": 4}', "[]"])
def test_a_damaged_checkpoint_is_named(tmp_path, torn):
    task, folder = _task(), _folder(tmp_path / "run")
    train(task, folder, trackers=())
    (checkpoint,) = folder.checkpoints.iterdir()
    (checkpoint / "position.json").write_text(torn)
    for going_on in (lambda: train(_task(), folder, trackers=()), lambda: goes_on(_task(), checkpoint)):
        with pytest.raises(Misuse, match=r"epoch-00004-batch-0000000/position.json is damaged"):
            going_on()


class _Poisoned(Standard):
    """Ordinary training whose loss is no number from the third epoch on."""

    def terms(self, step):
        terms = dict(super().terms(step))
        if step.epsilon > 0:
            terms["loss"] = terms["loss"] * torch.nan
        return terms


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path):
    folder = _folder(tmp_path / "run")
    with pytest.raises(
        Diverged,
        match=r"^the term 'loss' became no finite number, since batch 1 of epoch 3, at epsilon 0\.05 and learning "
        r"rate 0\.00541; the last good state is .*epoch-00002-batch-0000000, whose .*"
        r"Try: training\.learning_rate 0\.003; a ",
    ):
        train(_task(objective=_Poisoned()), folder, trackers=())
    assert [row["epoch"] for row in folder.history()] == [0, 1]
    state = json.loads(next(folder.checkpoints.glob("*/position.json")).read_text())
    assert (state["epoch"], state["batch"]) == (2, 0)


def test_a_loss_that_is_no_number_is_noticed_within_a_long_epoch(tmp_path):
    steps = []
    with pytest.raises(Diverged, match="since batch 1 of epoch 1"):
        task = _task(objective=_Poisoned(), schedule=Fixed(), options=Training(epochs=1, batch_size=1))
        train(
            replace(task, images=random_images(small_network(seed=9).eval(), 80)),
            _folder(tmp_path / "run"),
            trackers=(),
            watch=lambda share, _: steps.append(share),
        )
    assert len(steps) == 49


def test_validation_is_called_once_an_epoch_and_kept(tmp_path):
    folder, calls = _folder(tmp_path / "run"), []

    def validate(classifier, epsilon):
        calls.append(epsilon)
        return {"clean": 0.5}

    noted = []
    train(_task(), folder, validate=validate, noted=noted.append, trackers=())
    assert calls == pytest.approx([0, 0, 0.05, 0.1])
    assert [row["validation/clean"] for row in folder.history()] == [0.5] * 4
    assert noted == folder.history()


def test_tensorboard_gets_every_epoch(tmp_path):
    folder = _folder(tmp_path / "run")
    train(_task(), folder)
    assert list((folder.path / "tracking").rglob("events.out.tfevents*"))


def test_the_global_random_state_and_the_forward_method_are_as_before(tmp_path):
    before, task = torch.get_rng_state(), _task(options=Training(epochs=1, batch_size=16, precision="bf16"))
    train(task, _folder(tmp_path / "run"), trackers=())
    assert torch.equal(torch.get_rng_state(), before)
    assert task.classifier(torch.rand(2, 1, 6, 6)).dtype == torch.float32
    assert "forward" not in vars(task.classifier)


def test_low_precision_reaches_the_network_and_the_weights_stay_full(tmp_path):
    full = _trained(tmp_path / "a", options=Training(epochs=2, batch_size=16))
    low = _trained(tmp_path / "b", options=Training(epochs=2, batch_size=16, precision="bf16", channels_last=True))
    assert all(tensor.dtype != torch.bfloat16 for tensor in low.values())
    assert not _same(full, low)
    name = "network.5.weight"
    torch.testing.assert_close(low[name], full[name], atol=0.02, rtol=0.2)


def test_validation_sees_the_classifier_in_full_precision(tmp_path):
    images, seen = torch.rand(4, 1, 6, 6), []
    task = _task(options=Training(epochs=1, batch_size=16, precision="bf16"))

    def validate(classifier, epsilon):
        classifier.eval()
        with torch.no_grad():
            seen.append(torch.equal(classifier(images), type(classifier).forward(classifier, images)))
        return {}

    train(task, _folder(tmp_path / "run"), validate=validate, trackers=())
    assert seen == [True]
    assert all(parameter.grad is None for parameter in task.classifier.parameters())


@pytest.mark.parametrize(("last", "finite"), [(1.0, True), (torch.inf, False), (torch.nan, False)])
def test_the_device_is_asked_once_whether_a_state_is_finite(monkeypatch, last, finite):
    asked, real = [], torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: asked.append(tensor) or real(tensor))
    state = [torch.ones(2, 3), torch.zeros(0), torch.tensor([0.0, last])]
    assert _Loop._finite(SimpleNamespace(device=torch.device("cpu"), _state=lambda: iter(state))) is finite
    assert len(asked) == 1


def test_a_state_that_is_no_number_never_replaces_a_good_checkpoint(tmp_path):
    folder = _folder(tmp_path / "run")
    options = Training(epochs=2, batch_size=16, learning_rate=1e30, warmup=0.0, clip=None, checkpoint_every=1)
    with pytest.raises(Diverged):
        train(_task(objective=Standard(), options=options), folder, trackers=())
    for kept in folder.checkpoints.glob("*/model.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(kept).values())


class _Ruining(Standard):
    """Ordinary training that leaves a statistic of the network without a value."""

    def advance(self, model, state, terms):
        next(buffer for name, buffer in model.named_buffers() if "running_var" in name).fill_(torch.inf)
        return state


def test_statistics_that_are_no_numbers_are_no_good_state_either(tmp_path):
    folder = _folder(tmp_path / "run")
    with pytest.raises(Diverged):
        train(_task(objective=_Ruining()), folder, trackers=())
    assert not list(folder.checkpoints.glob("*/model.safetensors"))


class _Mode(PGD):
    """Tells of the batch norms of what it attacks."""

    seen: ClassVar[list[list[str]]] = []

    def perturb(self, model, *given, **named):
        self.seen.append([type(module).__name__ for module in model.modules()])
        return super().perturb(model, *given, **named)


@pytest.mark.parametrize(("options", "folded"), [({}, True), ({"precision": "bf16"}, True), ({"compile": True}, False)])
def test_attacks_follow_a_network_whose_batch_norms_are_folded(tmp_path, monkeypatch, options, folded):
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    _Mode.seen.clear()
    options = Training(epochs=1, batch_size=16, **options)
    task = _task(objective=Adversarial(attack=_Mode(steps=1)), schedule=Fixed(), options=options)
    train(task, _folder(tmp_path / "run"), trackers=())
    assert [("BatchNorm2d" not in kinds) for kinds in _Mode.seen] == [folded] * 4
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in task.classifier.modules())


def test_attacking_a_folded_copy_changes_weights_by_rounding_alone(tmp_path, monkeypatch):
    """In float64; a shadow that stood still, or followed wrongly, would end elsewhere."""
    found = []
    for name in ("folded", "plain"):
        task = _task(schedule=Fixed(), objective=Adversarial(attack=PGD(steps=3, step_size=0.3)))
        task.classifier.double()
        train(task, _folder(tmp_path / name), trackers=())
        found.append(_weights(task))
        monkeypatch.setattr("poise.training.trainer.Shadow.of", lambda *_: None)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-6, atol=1e-9)


def test_the_network_itself_is_attacked_where_its_copy_says_something_else(tmp_path, monkeypatch):
    monkeypatch.setattr(Shadow, "of", lambda model, *_: Shadow(model, model, [], "fp32"))
    monkeypatch.setattr(Shadow, "agrees", lambda *_: False)
    told = []
    train(_task(schedule=Fixed()), _folder(tmp_path / "run"), trackers=(), tell=told.append)
    assert told == ["attacks follow the network itself from here on: its faster copy says something else"]


def test_an_empty_training_set_is_refused(tmp_path):
    task = _task()
    empty = Task(task.classifier, task.images.select(torch.arange(0)), task.objective, task.schedule, task.threat)
    with pytest.raises(Misuse, match="no training images"):
        train(empty, _folder(tmp_path / "run"), trackers=())
    shutil.rmtree(tmp_path / "run")


def test_fixed_and_hinge_differ(tmp_path):
    assert not _same(_trained(tmp_path / "a", schedule=Fixed()), _trained(tmp_path / "b", schedule=Hinge()))


class _Averaging(Standard):
    """Ordinary training that remembers and ships the running mean of its weights, and how often it was asked to."""

    def begin(self, model):
        return {"count": torch.zeros((), dtype=torch.int64)} | {
            name: value.clone() for name, value in model.named_parameters()
        }

    def advance(self, model, state, terms):
        assert not any(term.requires_grad for term in terms.values())
        count = state["count"] + 1
        return {"count": count} | {
            name: state[name] + (value - state[name]) / count for name, value in model.named_parameters()
        }

    def weights(self, state):
        return {name: value for name, value in state.items() if name != "count"}


def test_the_weights_that_an_objective_averages_are_validated_and_shipped_but_not_trained_on(tmp_path):
    plain, averaging = _task(objective=Standard()), _task(objective=_Averaging())
    seen = []

    def validate(classifier, epsilon):
        seen.append(next(classifier.parameters()).detach().clone())
        return {}

    train(averaging, _folder(tmp_path / "run"), validate=validate, trackers=())
    train(plain, _folder(tmp_path / "plain"), trackers=())
    losses = [[row["train/loss"] for row in RunFolder(tmp_path / name).history()] for name in ("run", "plain")]
    assert losses[0] == losses[1]  # training goes its way, whatever is shown
    assert not torch.equal(seen[-1], next(plain.classifier.parameters()))
    assert torch.equal(seen[-1], next(averaging.classifier.parameters()))


def test_what_an_objective_remembers_survives_an_interruption(tmp_path):
    def interrupted(progress, _):
        if progress > 0.6:
            raise KeyboardInterrupt

    whole, cut = _task(objective=_Averaging()), _task(objective=_Averaging())
    train(whole, _folder(tmp_path / "whole"), trackers=())
    folder = _folder(tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        train(cut, folder, watch=interrupted, trackers=())
    again = _task(objective=_Averaging())
    train(again, folder, trackers=())
    for name, value in whole.classifier.state_dict().items():
        assert torch.equal(value, again.classifier.state_dict()[name]), name


@pytest.mark.parametrize(
    "objective",
    [
        Averaged(objective=TRADES(attack=PGD(steps=1)), decay=0.9),
        Guarded(objective=Adversarial(attack=FGSM(step_size=1e-6)), every=1, gap=1e-3, switch=True),
    ],
    ids=["averaged", "guarded"],
)
def test_objectives_that_remember_resume_to_the_same_weights(tmp_path, objective):
    options = Training(epochs=12, batch_size=16, learning_rate=3e-2, checkpoint_every=3)
    whole = _trained(tmp_path / "whole", options=options, objective=objective, schedule=Fixed())
    folder, steps = _folder(tmp_path / "cut"), 0

    def kill(share, facts):
        nonlocal steps
        steps += 1
        if steps == 8:
            raise _Killed

    with pytest.raises(_Killed):
        train(_task(options=options, objective=objective, schedule=Fixed()), folder, trackers=(), watch=kill)
    resumed = _task(options=options, objective=objective, schedule=Fixed())
    train(resumed, folder, trackers=())
    assert _same(_weights(resumed), whole)
    if isinstance(objective, Guarded):
        assert folder.history()[-1]["train/collapsed"] == 1  # it did switch, so the state mattered


class _Comparing(Standard):
    """Ordinary training that looks at another network."""

    roles = ("old",)
    seen: ClassVar[list[bool]] = []

    def terms(self, step):
        old = step.references["old"]
        logits = old(step.batch.images)
        self.seen.append(logits.requires_grad or old.training)
        return super().terms(step)


def test_references_are_frozen_in_eval_mode_and_left_as_they_were(tmp_path):
    old = _task().classifier.train()
    before = old.digest()
    with pytest.raises(Misuse, match="_Comparing compares with other networks; missing: old"):
        check_task(_task(objective=_Comparing()))
    train(_task(objective=_Comparing(), references={"old": old}), _folder(tmp_path / "run"), trackers=())
    assert _Comparing.seen
    assert not any(_Comparing.seen)
    assert old.digest() == before
    assert all(module.training for module in old.modules())
    assert all(parameter.requires_grad for parameter in old.parameters())


def test_a_compiled_network_trains_and_verdicts_are_on_the_plain_one(tmp_path, monkeypatch):
    """What stands in for the compiler counts the calls that reach what it made."""
    calls = []

    def compiled(module, **_):
        module._compiled_call_impl = lambda *given: (calls.append(1), module._call_impl(*given))[1]

    def validate(classifier, _):
        before = len(calls)
        classifier(torch.rand(2, 1, 6, 6))
        assert len(calls) == before
        return {}

    monkeypatch.setattr(torch.nn.Module, "compile", compiled)
    task = _task(options=Training(epochs=1, batch_size=16, compile=True))
    train(task, _folder(tmp_path / "run"), validate=validate, trackers=())
    assert len(calls) == 4  # steps at epsilon 0: one pass each
    task.classifier(torch.rand(2, 1, 6, 6))
    assert len(calls) == 4


def test_accelerates_shared_state_is_as_before(tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    theirs = Accelerator(mixed_precision="bf16", cpu=True)
    before = dict(AcceleratorState._shared_state)
    train(_task(options=Training(epochs=1, batch_size=16)), _folder(tmp_path / "run"), trackers=())
    assert dict(AcceleratorState._shared_state) == before
    assert theirs.mixed_precision == "bf16"
    AcceleratorState._reset_state()


def test_deepspeed_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(Misuse, match=r"DeepSpeed is not supported; launch with .* --use_fsdp"):
        check_task(_task())
