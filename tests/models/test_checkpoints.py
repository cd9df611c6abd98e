import argparse
import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from poise.core.misuse import Misuse
from poise.models import open_model
from poise.models.checkpoints import read_checkpoint

SHAPE = (1, 4, 4)


@pytest.fixture(scope="module")
def trained():
    """Weights that no random initialisation with seed 0 gives."""
    return open_model("small", classes="abc", shape=SHAPE, seed=7).network.state_dict()


def prefixed(tensors, prefix):
    return OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())


def opened(path, **options):
    return open_model("small", weights=path, shape=SHAPE, **options)


def same(network, tensors):
    found = network.state_dict()
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)


@pytest.mark.parametrize("entry", [None, "state_dict", "model", "model_state", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "network.", "model.", "module._orig_mod.model."])
def test_every_usual_form_is_read(tmp_path, trained, entry, prefix):
    tensors = prefixed(trained, prefix)
    torch.save({entry: tensors, "epoch": 3} if entry else tensors, tmp_path / "w.pt")
    classifier = opened(tmp_path / "w.pt")
    assert same(classifier.network, trained)
    assert classifier.classes == ("0", "1", "2")
    assert classifier.notes == ()


def test_safetensors_are_read(tmp_path, trained):
    save_file(trained, tmp_path / "w.safetensors")
    assert same(opened(tmp_path / "w.safetensors", classes="abc").network, trained)


def test_averaged_weights_come_first_and_are_noted(tmp_path, trained):
    other = {name: tensor + 1 for name, tensor in trained.items()}
    torch.save({"state_dict": other, "state_dict_ema": trained}, tmp_path / "w.pth")
    classifier = opened(tmp_path / "w.pth")
    assert same(classifier.network, trained)
    assert classifier.notes == ("averaged weights taken from w.pth: its entry state_dict_ema",)


def test_the_counter_of_an_averaged_model_is_no_weight(tmp_path, trained):
    torch.save({"n_averaged": torch.tensor(5), **prefixed(trained, "module.")}, tmp_path / "w.pt")
    assert same(opened(tmp_path / "w.pt").network, trained)


def test_a_training_checkpoint_with_its_arguments_is_read(tmp_path, trained):
    torch.save({"state_dict": trained, "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth.tar")
    assert same(opened(tmp_path / "w.pth.tar").network, trained)


def test_a_prefix_that_is_part_of_the_names_stays(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Linear(2, 2)

    network = Wrapped()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt").fitted(network.state_dict()).keys() == network.state_dict().keys()


def test_another_class_count_gets_a_new_head(tmp_path, trained):
    torch.save(trained, tmp_path / "w.pt")
    classifier = opened(tmp_path / "w.pt", classes="ab")
    assert classifier.notes == ("head replaced: 3 classes in w.pt, 2 here",)
    found = classifier.network.state_dict()
    assert found["head.weight"].shape == (2, 64)
    assert all(torch.equal(found[name], trained[name]) for name in trained if not name.startswith("head"))


def test_another_architecture_is_named_with_its_differences(tmp_path):
    torch.save({"head.weight": torch.zeros(2, 64), "foreign.bias": torch.zeros(2)}, tmp_path / "w.pt")
    line = (
        r"w.pt is a checkpoint of another architecture: 19 tensors missing \(first: features.0.0.weight\), 1 unexpected"
    )
    with pytest.raises(Misuse, match=line + r" \(first: foreign.bias\)$"):
        opened(tmp_path / "w.pt")


def test_another_shape_is_named(tmp_path, trained):
    torch.save(trained, tmp_path / "w.pt")
    with pytest.raises(Misuse, match=r"0 unexpected, 1 of another shape \(first: features.0.0.weight\)"):
        open_model("small", weights=tmp_path / "w.pt", shape=(3, 4, 4))


class Sneaky:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_malicious_pickle_is_not_executed(tmp_path, writer):
    target = tmp_path / "executed"
    content = {"state_dict": Sneaky(target)}
    if writer == "torch":
        torch.save(content, tmp_path / "w.pt")
    else:
        (tmp_path / "w.pt").write_bytes(pickle.dumps(content))
    with pytest.raises(Misuse, match="running code it names, which poise never does"):
        opened(tmp_path / "w.pt")
    assert not target.exists()


def test_a_pickled_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(Misuse, match=r"save its state_dict\(\) alone"):
        opened(tmp_path / "w.pt")


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_truncated_file_is_named(tmp_path, trained, name, share):
    path = tmp_path / name
    save_file(trained, path) if path.suffix == ".safetensors" else torch.save(trained, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(Misuse, match=f"{name} is damaged or cut short"):
        opened(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1], "holds a list, not a state dict"),
        ({"epoch": 3, "best": 0.5}, "holds no weights; its entries: epoch, best"),
        ({}, "its entries: none"),
    ],
)
def test_a_file_without_weights_is_named(tmp_path, content, words):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(Misuse, match=words):
        opened(tmp_path / "w.pt")


def test_a_path_that_is_no_file_of_weights_is_named(tmp_path):
    with pytest.raises(Misuse, match=r"no file of weights at .*absent\.pt"):
        opened(tmp_path / "absent.pt")
    with pytest.raises(Misuse, match=r"is a folder; .* run:"):
        opened(tmp_path)
    (tmp_path / "w.h5").write_text("x")
    with pytest.raises(Misuse, match=r"w.h5 is not a file of weights by its ending; known: .*\.safetensors"):
        opened(tmp_path / "w.h5")


@pytest.mark.parametrize(("name", "value"), [("weight", torch.nan), ("running_var", torch.nan), ("bias", torch.inf)])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, trained, name, value):
    names = [each for each in trained if each.endswith(name)]
    spoilt = {each: tensor.clone() for each, tensor in trained.items()}
    spoilt[names[-1]].view(-1)[0] = value
    save_file(spoilt, tmp_path / "w.safetensors")
    with pytest.raises(Misuse, match=f"{names[-1]} holds values that are no finite numbers"):
        opened(tmp_path / "w.safetensors", classes="abc")
