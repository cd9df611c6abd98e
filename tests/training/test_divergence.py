from __future__ import annotations

from dataclasses import replace

import torch

from poise.training import Training
from poise.training.divergence import Circumstances, Tally, diagnosis

FOUND = Circumstances(
    epoch=2, batch=6, epsilon=0.05, learning_rate=0.003, terms={"loss": 6, "penalty": 9}, checkpoint="run/c"
)


def test_a_tally_weighs_terms_by_examples_and_remembers_since_when_they_are_no_numbers():
    tally = Tally(torch.device("cpu"), {"loss": 10.0})
    for number, (count, loss) in enumerate([(4, 1.0), (2, 3.0), (4, torch.nan), (4, 1.0), (4, torch.inf)]):
        tally.add({"loss": torch.tensor(loss), "accuracy": torch.tensor(0.5)}, count, number)
        if number == 1:
            assert tally.totals() == {"loss": 20.0, "accuracy": 3.0}
            assert tally.broken() == {}
    assert tally.broken() == {"loss": 2}


def test_the_diagnosis_names_the_first_bad_term_its_step_and_what_to_try():
    assert diagnosis(FOUND, Training(learning_rate=0.01, clip=None)) == (
        "the term 'loss' became no finite number, since batch 7 of epoch 3, at epsilon 0.05 and learning rate 0.003; "
        "the last good state is run/c, whose model.safetensors a new run takes as --weights. Try: training.clip 1; "
        "training.learning_rate 0.003; "
        "a schedule that reaches its target later"
    )


def test_the_diagnosis_of_bad_weights_on_clean_images_without_a_checkpoint():
    found = replace(FOUND, terms={}, epsilon=0.0, checkpoint=None)
    assert diagnosis(found, Training(learning_rate=0.01, precision="fp16", warmup=0.0)) == (
        "the weights became no finite number, noticed at batch 7 of epoch 3, at epsilon 0 and learning rate 0.003; "
        "there is no good state yet. Try: training.precision bf16; training.learning_rate 0.003; training.warmup 0.1"
    )
