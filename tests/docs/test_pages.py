"""Every code block of the documentation is run, page by page, in an empty folder with a few photographs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

from poise.cli import main
from poise.models import open_model

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(path for path in DOCS.rglob("*.md") if FENCE.search(path.read_text(encoding="utf-8")))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working folder with `photos`, ten images of each of two classes, and weights for a small network of timm's."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for brightness, name in ((60, "cat"), (180, "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(rng.normal(brightness, 20, (44, 50, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    network = open_model("timm:test_resnet", weights="random", classes=("a", "b"), shape=(3, 40, 40), new_head=True)
    save_file(network.network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_the_code_of_a_page_runs(page, desk, monkeypatch):
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        body = block["body"]
        match block["language"]:
            case "console":
                _run(body)
            case "python":
                exec(compile(body, page.name, "exec"), vars(module))  # noqa: S102 - our own pages
            case "yaml":
                assert isinstance(yaml.safe_load(body), dict)
                if named := re.match(r"# (\w+\.yaml)\n", body):
                    Path(named[1]).write_text(body, encoding="utf-8")
            case other:
                pytest.fail(f"{page.name}: a block in {other or 'no language'} cannot be tested")


def _run(body: str) -> None:
    lines = body.splitlines()
    assert all(line.startswith("$ poise ") for line in lines), lines
    for line in lines:
        words = shlex.split(line)[2:]
        assert main(words) == 0, line


def test_there_are_pages_to_run():
    assert len(PAGES) >= 5
