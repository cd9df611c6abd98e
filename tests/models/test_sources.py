import sys
import types

import pytest
import torch
from torch import nn

from poise.core.misuse import Misuse
from poise.models import open_model, save_model
from tests.models import factories

HERE = "python:tests.models.factories"


@pytest.fixture
def run(tmp_path):
    classifier = open_model("small", classes=("cat", "dog", "owl"), shape=(1, 4, 4), seed=3)
    save_model(classifier, tmp_path / "old")
    return f"run:{tmp_path / 'old'}", classifier


def weights_of(classifier):
    return classifier.network.state_dict()


@pytest.mark.parametrize("address", ["small", "timm:test_resnet"])
def test_initialisation_repeats_and_leaves_no_trace(address):
    before = torch.get_rng_state()
    first, second, other = (
        open_model(address, weights="random", classes="ab", shape=(3, 16, 16), seed=s) for s in (5, 5, 6)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert first.digest() == second.digest() != other.digest()


def test_own_networks_centre_their_images():
    classifier = open_model("small", classes="ab", shape=(1, 4, 4)).eval()
    images = torch.rand(2, 1, 4, 4)
    assert torch.equal(classifier(images), classifier.network((images - 0.5) / 0.25))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tim:resnet18", "no model is of the kind 'tim'.*did you mean 'timm'"),
        ("resnet50", "did you mean 'resnet18'"),
        ("zzz", "valid: lipschitz, python, resnet18, robustbench, run, small, timm"),
        ("timm", "reads timm:NAME; got 'timm'"),
        ("run:", "reads run:FOLDER; got 'run:'"),
        ("small:big", "reads small; got 'small:big'"),
        ("python:os", "reads python:PACKAGE.MODULE:NAME; got 'python:os'"),
        ("python:nowhere.at_all:make", "no module 'nowhere' on the import path"),
        ("python:tests.models.nowhere:make", "no module 'tests.models.nowhere' on the import path"),
        (f"{HERE}:liner", "has no callable 'liner'; did you mean 'linear'"),
        (f"{HERE}:demanding", "cannot be called with {}: missing a required argument: 'width'"),
        (f"{HERE}:number", "must return a torch.nn.Module; it returned int"),
        (f"{HERE}:Scores", r"logits of shape \(images, classes\); for one image it returned shape \(1,\)"),
        ("robustbench:Standard", "needs the package robustbench: no module 'robustbench"),
        ("robustbench:L2/Standard", "reads robustbench:NAME or robustbench:DATASET/THREAT/NAME"),
        ("timm:resnet81", "has no network 'resnet81'; did you mean 'resnet18'"),
        ("timm:resnet18.nope", "no weights 'nope' for resnet18; valid: .*resnet18.a1_in1k"),
        ("timm:test_maxvit", r"no weights for test_maxvit \(there are none\); give --weights FILE or --weights random"),
    ],
)
def test_what_cannot_be_found_says_what_would_work(address, words, monkeypatch):
    if address.startswith("robustbench"):
        monkeypatch.setitem(sys.modules, "robustbench", None)
    with pytest.raises(Misuse, match=words):
        open_model(address, shape=(3, 2, 2))


def test_what_is_needed_is_said():
    with pytest.raises(Misuse, match="small has no classes of its own"):
        open_model("small", shape=(1, 4, 4))
    with pytest.raises(Misuse, match="resnet18 has no image shape of its own"):
        open_model("resnet18", classes="ab")
    with pytest.raises(Misuse, match=r"\(channels, height, width\); got \(16,\)"):
        open_model("small", classes="ab", shape=(16,))
    with pytest.raises(Misuse, match="small takes no options"):
        open_model("small", classes="ab", shape=(1, 4, 4), options={"width": 3})


def test_a_python_factory_is_taken_as_it_is():
    classifier = open_model(f"{HERE}:linear", shape=(3, 2, 2))
    images = torch.rand(5, 3, 2, 2)
    assert torch.equal(classifier(images), classifier.network(images))
    assert classifier.classes == ("0", "1", "2", "3")
    assert classifier.blueprint.address == f"{HERE}:linear"


def test_a_python_factory_gets_the_class_count_it_has_a_name_for():
    assert open_model(f"{HERE}:sized", classes="abc", shape=(3, 2, 2))(torch.rand(1, 3, 2, 2)).shape == (1, 3)
    with pytest.raises(Misuse, match="gives 4 logits, but there are 3 classes"):
        open_model(f"{HERE}:linear", classes="abc", shape=(3, 2, 2))


def test_a_python_factory_takes_options_and_weights(tmp_path):
    other = factories.linear()
    torch.save(other.state_dict(), tmp_path / "w.pt")
    classifier = open_model(f"{HERE}:linear", weights=tmp_path / "w.pt", shape=(3, 2, 2))
    assert torch.equal(classifier.network[3].weight, other[3].weight)
    assert open_model(f"{HERE}:demanding", shape=(5,), options={"width": 5}).num_classes == 2


def test_images_that_a_network_cannot_take_are_refused_at_once():
    with pytest.raises(Misuse, match=r"linear cannot take images of shape \(3, 9, 9\) \(RuntimeError: "):
        open_model(f"{HERE}:linear", shape=(3, 9, 9))


def test_robustbench_is_asked_by_name_data_and_threat(monkeypatch):
    asked = []

    def load_model(**arguments):
        asked.append(arguments)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 10))

    fake = types.ModuleType("robustbench.utils")
    fake.load_model = load_model
    monkeypatch.setitem(sys.modules, "robustbench", types.ModuleType("robustbench"))
    monkeypatch.setitem(sys.modules, "robustbench.utils", fake)
    assert open_model("robustbench:Standard", shape=(3, 2, 2)).num_classes == 10
    open_model("robustbench:imagenet/L2/Other", shape=(3, 2, 2))
    assert asked == [
        {"model_name": "Standard", "dataset": "cifar10", "threat_model": "Linf"},
        {"model_name": "Other", "dataset": "imagenet", "threat_model": "L2"},
    ]


def test_a_run_opens_as_it_was_saved(run):
    address, saved = run
    opened = open_model(address)
    assert opened.digest() == saved.digest()
    assert open_model(address, classes=saved.classes, shape=(1, 4, 4)).digest() == saved.digest()


def test_a_run_refuses_other_class_names(run):
    with pytest.raises(Misuse, match="knows class 1 as 'dog'; the data calls it 'fox'"):
        open_model(run[0], classes=("cat", "fox", "owl"))


def test_a_run_gets_a_new_head_for_as_many_other_classes_where_granted_but_never_for_its_own_in_another_order(run):
    address, saved = run
    opened = open_model(address, classes=("ape", "fox", "owl"), new_head=True)
    assert opened.notes == (f"head replaced: 3 classes in {address}, 3 others here",)
    assert opened.classes == ("ape", "fox", "owl")
    assert not torch.equal(opened.network.head.weight, saved.network.head.weight)
    assert torch.equal(opened.network.features[0][0].weight, saved.network.features[0][0].weight)
    with pytest.raises(Misuse, match="knows class 0 as 'cat'; the data calls it 'dog'"):
        open_model(address, classes=("dog", "cat", "owl"), new_head=True)


def test_a_run_gets_a_new_head_only_where_granted(run):
    address, saved = run
    with pytest.raises(Misuse, match="has 3 classes and the data 2"):
        open_model(address, classes=("cat", "dog"))
    opened = open_model(address, classes=("cat", "dog"), new_head=True)
    assert opened.notes == (f"head replaced: 3 classes in {address}, 2 here",)
    assert opened.classes == ("cat", "dog")
    assert opened(torch.rand(2, 1, 4, 4)).shape == (2, 2)
    assert torch.equal(opened.network.features[0][0].weight, saved.network.features[0][0].weight)


def test_a_run_hands_its_notes_on(run, tmp_path):
    first = open_model(run[0], classes=("cat", "dog"), new_head=True)
    save_model(first, tmp_path / "new")
    second = open_model(f"run:{tmp_path / 'new'}", classes=("cat",), new_head=True)
    assert second.notes == (*first.notes, f"head replaced: 2 classes in run:{tmp_path / 'new'}, 1 here")


def test_a_run_refuses_other_channels_and_takes_other_sizes(run):
    with pytest.raises(Misuse, match=r"takes images of shape \(1, 4, 4\); the data has \(3, 4, 4\)"):
        open_model(run[0], shape=(3, 4, 4))
    assert open_model(run[0], shape=(1, 8, 8)).blueprint.shape == (1, 8, 8)


def test_a_run_takes_other_weights(run, tmp_path):
    address, saved = run
    other = {name: tensor + 1 for name, tensor in weights_of(saved).items()}
    torch.save({"model": other}, tmp_path / "w.pt")
    found = weights_of(open_model(address, weights=tmp_path / "w.pt"))
    assert all(torch.equal(found[name], other[name]) for name in other)
    fresh = weights_of(open_model(address, weights="random", seed=1))
    assert not torch.equal(fresh["head.weight"], weights_of(saved)["head.weight"])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(Misuse, match=r"is not a run folder: it holds no model\.json"):
        open_model(f"run:{tmp_path}")
