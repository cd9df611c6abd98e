"""Run by several processes that share out the weights: the same fine-tuning in this way and in the ordinary one."""

import os

import poise
from poise.core.threat import Threat
from poise.objectives import Averaged
from poise.schedules import Hinge
from poise.training import Probe, Training
from poise.training.sharding import FLAG


def main() -> None:
    """Batch norm, averaged weights, a part that is frozen at first, batches cut by memory; the best epoch is kept."""
    for out in ("parts", "whole"):
        poise.finetune(
            "python:tests.models.factories:normalised",
            threat=Threat(epsilon=0.1),
            schedule=Hinge(start=0.0),
            objective=Averaged(),
            transfer=Probe(share=0.5),
            training=Training(
                epochs=4, batch_size=32, learning_rate=1e-2, optimizer="sgd", micro_batch=5, checkpoint_every=2
            ),
            limit=99,
            validate_on=21,
            keep="best",
            augmentation="flip",
            trackers=(),
            out=out,
        )
        os.environ.pop(FLAG, None)


if __name__ == "__main__":
    main()
