from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from tests.commands.page.test_exhibit import asked

COUNTED = """
import torch
from poise.commands.page.exhibit import Exhibit
from poise.commands.page.layout import page
from poise.core.threat import Threat
from poise.data import InMemory
from poise.models.mixing import MixedClassifier
from tests.commands.page.conftest import CLASSES, network
from tests.commands.page.test_exhibit import asked

names = tuple(f"image {row}" for row in range(10))
images = InMemory("random", CLASSES, names, torch.arange(10) % 3, torch.rand(10, 1, 8, 8))
exhibit = Exhibit(classifier=MixedClassifier.of(network(0), network(1), 0.5), images=images, threat=Threat())
counter = asked(exhibit.classifier)
exhibit.example(0)
of_one_image = counter.call_count
page(exhibit, "a page")
print(of_one_image, counter.call_count - of_one_image)
"""


@pytest.mark.skipif(find_spec("gradio") is None, reason="needs gradio")
def test_a_page_opens_with_the_passes_of_one_image():
    """In a process of its own, as gradio leaves event loops open."""
    asks = [sys.executable, "-W", "ignore", "-c", COUNTED]
    told = subprocess.run(asks, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["2", "2"]


def test_a_picture_is_the_image_that_is_shown_and_costs_no_pass(exhibit):
    shown, counter = exhibit.example(4), asked(exhibit.classifier)
    image, label = exhibit.picture(4)
    assert torch.equal(image, shown.image)
    assert label == shown.label == 1
    assert not counter.called
