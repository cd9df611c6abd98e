"""How well a pretrained network took up its new task, as the rows of its history tell: figures and plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from poise.schedules import Fixed, Moment, Schedule
from poise.training.keeping import CLEAN, ROBUST, Keep, Row, kept

_NOTHING, _WITHSTOOD = 0.01, 0.5
"""Robust accuracy that is as good as none, and accuracy under the training's attack that it does not go with."""
_MANY = 1000
"""Steps of an epoch, where a schedule is asked before they are known."""
_OVERFITTED, _APART = 0.05, 0.2
"""Robust validation accuracy that was lost again, and by how much it is below that on training images."""
_TRAINED = "train/accuracy"


@dataclass(frozen=True)
class Setting:
    """What the rows were measured under.

    Args:
        classes: number of classes.
        epochs: planned length of the training.
        target: the target epsilon.
        robust: whether the objective looks at attacked images at all.
        schedule: of epsilon.
        standard: final clean validation accuracy of standard fine-tuning; None where no such run is named.
        switches: whether a collapse that the objective `guarded` notices makes it train on its judge's images.
        largest: share of the images that the largest class has for certain, in [0, 1].
        keep: whose weights the training ends with: see `poise.training.keeping.kept`.
    """

    classes: int
    epochs: int
    target: float
    robust: bool = True
    schedule: Schedule = Fixed()
    standard: float | None = None
    switches: bool = False
    largest: float = 0.0
    keep: Keep = "last"

    @property
    def chance(self) -> float:
        """Accuracy without looking at an image: one class of many, or the largest where it stands out."""
        return max(self.largest, 1 / self.classes)

    @property
    def threshold(self) -> float:
        """Clean accuracy from which on the task counts as being learned: 5 %, or twice chance where that is higher.

        Never above halfway from chance to 1, which matters for two classes and where one class stands out.
        """
        return max(0.05, min(2 * self.chance, self.halfway(1.0)))

    def halfway(self, accuracy: float) -> float:
        """Halfway from chance to an accuracy."""
        return (accuracy + self.chance) / 2


@dataclass(frozen=True)
class Remark:
    """Something that a person should know and can act on.

    Args:
        kind: a short name that stays.
        text: what is the matter, and what to try.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class Adaptation:
    """What a history says.

    Args:
        delay: the first epoch, counted from 1, after which clean accuracy is above the threshold (the delay of task
            adaptation of arXiv 2509.23325); None where it never is.
        threshold: that accuracy.
        kept: the epoch, counted from 1, whose weights are the run's; None where nothing was validated.
        clean: its clean validation accuracy, likewise.
        robust: its robust validation accuracy at the target epsilon, likewise.
        gap: by how much clean accuracy is below that of standard fine-tuning; None where no such run is named.
        remarks: what is the matter.
    """

    delay: int | None
    threshold: float
    kept: int | None
    clean: float | None
    robust: float | None
    gap: float | None
    remarks: tuple[Remark, ...] = field(default=())

    def record(self) -> dict[str, object]:
        """The same as JSON can hold it."""
        return asdict(self)


def adaptation(history: Sequence[Row], setting: Setting) -> Adaptation:
    """What a history says, of a run that has ended or is under way.

    Args:
        history: one row an epoch, oldest first; of those without validation only the guard's word counts, and epsilon.
        setting: what they were measured under.
    """
    rows = [row for row in history if math.isfinite(row.get(CLEAN, math.nan))]
    delay = next((int(row["epoch"]) + 1 for row in rows if row[CLEAN] > setting.threshold), None)
    final = kept(rows, setting.keep, attacked=setting.robust) if rows else None
    clean = None if final is None else final[CLEAN]
    remarks = [rule(rows, setting) for rule in _RULES] if rows else []
    remarks += [rule(history, setting) for rule in _UNVALIDATED] if history else []
    return Adaptation(
        delay=delay,
        threshold=setting.threshold,
        kept=None if final is None else _epoch(final),
        clean=clean,
        robust=None if final is None else final.get(ROBUST),
        gap=None if clean is None or setting.standard is None else setting.standard - clean,
        remarks=tuple(remark for remark in remarks if remark is not None),
    )


def stays_at_chance(rows: Sequence[Row], setting: Setting) -> Remark | None:
    """The task has not been taken up after a fifth of the training, two epochs at least."""
    done, enough = len(rows), max(2, setting.epochs / 5)
    if done < enough or any(row[CLEAN] > setting.threshold for row in rows):
        return None
    told = (
        f"after {done} of {setting.epochs} epochs clean validation accuracy is {_percent(rows[-1][CLEAN])}, "
        f"no better than {_percent(setting.threshold)}: the network does not take up the task"
    )
    if rows[-1].get(_TRAINED, 0.0) > setting.halfway(1.0):
        advice = (
            "yet of the training images it gets "
            f"{_percent(rows[-1][_TRAINED])} right, so that averages of its batch norms may lag behind (few steps an "
            "epoch): keep those (training.batch_norm frozen), train longer, or take smaller batches"
        )
    elif not setting.robust or sum(row["epsilon"] == 0 for row in rows) >= enough:
        advice = "no attack is to blame; try another learning rate, check the labels, or train more of the network"
    else:
        advice = (
            f"at an epsilon of up to {_number(max(row['epsilon'] for row in rows))} this is common; "
            f"{setting.schedule.gentler}, or try a smaller epsilon or another learning rate"
        )
    return Remark("at-chance", f"{told}. {_advice(advice)}")


def has_collapsed(rows: Sequence[Row], setting: Setting) -> Remark | None:
    """The task was taken up; clean accuracy is below the threshold again, and nearer to chance than to its best."""
    best, last = max(rows, key=lambda row: row[CLEAN]), rows[-1]
    if best[CLEAN] <= setting.threshold or last[CLEAN] > min(setting.threshold, setting.halfway(best[CLEAN])):
        return None
    was, now = _percent(best[CLEAN]), _percent(last[CLEAN])
    slower = "lower the learning rate, or clip gradients"
    if not setting.robust:
        where, then = "", ""
    else:
        where, then = f" at epsilon {_number(best['epsilon'])}", f" at {_number(last['epsilon'])}"
        slower = f"let epsilon grow more slowly (a longer ramp, schedule adaptive), {slower}"
    return Remark(
        "collapse",
        f"clean validation accuracy was {was} after epoch {_epoch(best)}{where} and is {now}{then}: what was learned "
        f"is lost. {_advice(slower)}",
    )


def guard_has_struck(rows: Sequence[Row], setting: Setting) -> Remark | None:
    """The objective `guarded` has noticed that a stronger attack finds far more than the training's own."""
    struck = next((row for row in rows if row.get("train/collapsed", 0.0) > 0), None)
    if struck is None:
        return None
    after = (
        "Since then the training goes on with the judge's attack"
        if setting.switches
        else "Let it go over to the judge's attack with --objective.switch, or attack with more steps (pgd, apgd)"
    )
    return Remark(
        "catastrophic-overfitting",
        f"by epoch {_epoch(struck)} the network came to withstand the attack that it is trained on far better than the "
        f"guard's (accuracy {_percent(_then(struck, 'own'))} and {_percent(_then(struck, 'judged'))}). {after}",
    )


def _then(struck: Row, name: str) -> float:
    """What the comparison found that showed a collapse: rows hold it as a mean over all steps, before and after."""
    return struck[f"train/collapse_{name}"] / struck["train/collapsed"]


def overfits_to_the_attack(rows: Sequence[Row], setting: Setting) -> Remark | None:
    """Robust accuracy has broken down, or never came, while the attack of the training hardly succeeds any more.

    Robust accuracy counts while the task is learned: a network that says one class whatever it sees withstands all.
    """
    known = (row for row in rows if row["epsilon"] > 0 and ROBUST in row and _TRAINED in row)
    last, attacked = rows[-1], [row for row in known if row[CLEAN] > setting.threshold]
    if not setting.robust or last not in attacked:
        return None
    best = max(attacked, key=lambda row: row[ROBUST])
    lost = best[ROBUST] >= 0.1 and last[ROBUST] < best[ROBUST] / 4
    lost &= last[_TRAINED] >= best[_TRAINED] and last["epsilon"] >= best["epsilon"]
    never = last["epsilon"] >= setting.target and last[ROBUST] <= _NOTHING and last[_TRAINED] > _WITHSTOOD
    if not (lost or never):
        return None
    after = f", after {_percent(best[ROBUST])} in epoch {_epoch(best)}" if lost else ""
    nothing = "no other" if lost else "no other, or on its training images alone"
    return Remark(
        "catastrophic-overfitting",
        f"accuracy under the attack of the training is {_percent(last[_TRAINED])}; on validation images under a "
        f"stronger one it is {_percent(last[ROBUST])}{after}: the network has learned to withstand its own attack and "
        f"{nothing}. Attack with more steps (pgd, apgd), or train with --objective guarded --objective.switch, which "
        "goes over to them when this begins",
    )


def overfits_to_the_images(rows: Sequence[Row], setting: Setting) -> Remark | None:
    """Robust accuracy falls on validation images while that on training images is far above it (arXiv 2002.11569)."""
    known = [row for row in rows if ROBUST in row and _TRAINED in row and row[CLEAN] > setting.threshold]
    last = rows[-1]
    if not setting.robust or setting.keep == "best" or last not in known or not _reached(last["epsilon"], setting):
        return None
    best = max(known, key=lambda row: row[ROBUST])
    if best[ROBUST] - last[ROBUST] < _OVERFITTED or last[_TRAINED] - last[ROBUST] < _APART:
        return None
    if last[_TRAINED] <= best[_TRAINED] and last["epsilon"] <= best["epsilon"]:  # training images are lost as well
        return None
    if overfits_to_the_attack(rows, setting):  # which is worse
        return None
    return Remark(
        "robust-overfitting",
        f"robust validation accuracy was {_percent(best[ROBUST])} after epoch {_epoch(best)} and is "
        f"{_percent(last[ROBUST])}, that of training images under the training's attack {_percent(last[_TRAINED])}: "
        "the network learns these images by heart. Keep the best weights with --keep best, train for fewer epochs, or "
        "on more images",
    )


def withstands_nothing(rows: Sequence[Row], setting: Setting) -> Remark | None:
    """At the end the task is learned and hardly an image withstands the target epsilon."""
    if not setting.robust or (final := _final(rows, setting)) is None:
        return None
    if final[CLEAN] <= setting.threshold or final.get(ROBUST, 1.0) > _NOTHING:
        return None
    if overfits_to_the_attack(rows, setting):  # which says more
        return None
    return Remark(
        "not-robust",
        f"clean validation accuracy is {_percent(final[CLEAN])} and robust accuracy at epsilon "
        f"{_number(setting.target)} {_percent(final[ROBUST])}: the task is learned, robustness is not. "
        f"{_advice(setting.schedule.sooner, 'train longer', 'aim at a smaller epsilon')}",
    )


def falls_short_of_the_target(rows: Sequence[Row], setting: Setting) -> Remark | None:
    """The schedule did not raise epsilon to the target by the last epoch."""
    return _short(rows[-1]["epsilon"], "ended", setting) if _ended(rows, setting) else None


def foreseen(setting: Setting) -> Remark | None:
    """What can be said before the first step: that the training has too few epochs to reach its target."""
    last = setting.epochs - 1
    if last and setting.schedule.hears:  # it depends on what validation will say
        return None
    moment = Moment.of("epoch", last, 0, epochs=setting.epochs, batches=1, memory=setting.schedule.begin())
    if setting.schedule.every == "step":
        moment = Moment.of("step", last, _MANY - 1, epochs=setting.epochs, batches=_MANY, memory=moment.memory)
    reach = setting.schedule.mean(moment)
    return _short(reach * setting.target, "will end", setting)


def _short(reached: float, verb: str, setting: Setting) -> Remark | None:
    if not (setting.robust and setting.schedule.farther) or _reached(reached, setting):
        return None
    return Remark(
        "short-of-target",
        f"the training {verb} at epsilon {_number(reached)}, short of its target {_number(setting.target)}. "
        f"{_advice(setting.schedule.farther)}",
    )


def transfers_poorly(rows: Sequence[Row], setting: Setting) -> Remark | None:
    """Clean accuracy is more than ten points below that of standard fine-tuning."""
    if setting.standard is None or (final := _final(rows, setting)) is None or setting.standard - final[CLEAN] <= 0.1:
        return None
    return Remark(
        "suboptimal-transfer",
        f"clean validation accuracy is {_percent(final[CLEAN])}, {100 * (setting.standard - final[CLEAN]):.1f} "
        f"points below the {_percent(setting.standard)} of standard fine-tuning: robustness costs much of the "
        f"transfer. {_advice(setting.schedule.gentler, 'train longer', 'aim at a smaller epsilon')}",
    )


_RULES = (
    stays_at_chance,
    has_collapsed,
    overfits_to_the_attack,
    overfits_to_the_images,
    withstands_nothing,
    transfers_poorly,
)
_UNVALIDATED = (guard_has_struck, falls_short_of_the_target)
"""What is said of runs that validate nothing, too."""


def _reached(epsilon: float, setting: Setting) -> bool:
    return epsilon >= (1 - 1e-9) * setting.target


def _ended(rows: Sequence[Row], setting: Setting) -> bool:
    return int(rows[-1]["epoch"]) + 1 >= setting.epochs


def _final(rows: Sequence[Row], setting: Setting) -> Row | None:
    """The epoch whose weights the training has ended with; None before it has."""
    return kept(rows, setting.keep, attacked=setting.robust) if _ended(rows, setting) else None


def _advice(*ways: str) -> str:
    """A sentence of what may be tried."""
    *others, last = filter(None, ways)
    told = f"{', '.join(others)}, or {last}" if others else last
    return f"{told[0].upper()}{told[1:]}"


def _epoch(row: Row) -> int:
    return int(row["epoch"]) + 1


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(epsilon: float) -> str:
    return f"{epsilon:.4g}"
