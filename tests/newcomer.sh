#!/usr/bin/env bash
# From a clone to a report on one's own folder of images: the commands of the README, line by line.
# Run it where `photos` holds one folder of images per class; tests/docs/test_newcomer.py does so.
set -euo pipefail

make quickstart
. .venv/bin/activate
poise finetune small --data folder:photos --image-size 32 --training.epochs 5 --threat.epsilon 4/255 --out runs/first
poise profile run:runs/first --suite fast --limit 200
poise report runs/first
