import json
import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from poise.core.misuse import Misuse
from poise.models import load_model, open_model, save_model


@pytest.fixture
def small():
    return open_model("small", classes=("cat", "dog"), shape=(1, 8, 8), seed=4)


def changed(folder, **fields):
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content["blueprint"].update(fields)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("address", ["small", "resnet18", "timm:test_resnet", "timm:test_vit"])
def test_what_is_loaded_is_what_was_saved_bit_by_bit(tmp_path, address):
    saved = open_model(address, weights="random", classes=("cat", "dog"), shape=(3, 16, 16), seed=4)
    images = torch.rand(4, 3, 16, 16)
    saved(images)  # in training mode, so that running statistics move
    save_model(saved, tmp_path)
    loaded = load_model(tmp_path)
    ours, theirs = saved.network.state_dict(), loaded.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    assert torch.equal(saved.eval()(images), loaded.eval()(images))
    assert loaded.digest() == saved.digest()
    assert loaded.blueprint == saved.blueprint
    assert loaded.notes == saved.notes


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_precision_of_weights_is_kept(tmp_path, small, dtype):
    save_model(small.to(dtype), tmp_path)
    images = torch.rand(2, 1, 8, 8, dtype=dtype)
    for loaded in (load_model(tmp_path), open_model(f"run:{tmp_path}")):
        assert loaded.network.head.weight.dtype == dtype
        assert torch.equal(loaded.eval()(images), small.eval()(images))


def test_tensors_that_share_memory_are_saved(tmp_path, small):
    small.network.features[2][0].weight = nn.Parameter(torch.rand(64, 64, 3, 3))
    small.network.features[1][1].weight = small.network.features[2][1].weight
    save_model(small, tmp_path)
    assert load_model(tmp_path).digest() == small.digest()


def test_others_can_load_the_weights_by_their_usual_names(tmp_path):
    saved = open_model("timm:test_resnet", weights="random", classes="abc", shape=(3, 16, 16))
    save_model(saved, tmp_path)
    network = timm.create_model("test_resnet", num_classes=3)
    network.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    assert torch.equal(network.fc.weight, saved.network.fc.weight)


def test_saving_replaces_what_was_there_and_leaves_two_files(tmp_path, small):
    save_model(open_model("small", classes="abc", shape=(1, 8, 8)), tmp_path)
    save_model(small, tmp_path)
    assert load_model(tmp_path).digest() == small.digest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_a_foreign_network_is_not_rebuilt_but_the_way_is_told(tmp_path):
    address = "python:tests.models.factories:linear"
    saved = open_model(address, shape=(3, 2, 2), seed=1)
    save_model(saved, tmp_path)
    way = f"name {address} as the model, {tmp_path}/model.safetensors as its weights"
    with pytest.raises(Misuse) as caught:
        load_model(tmp_path)
    assert way in str(caught.value)
    assert open_model(address, weights=tmp_path / "model.safetensors", shape=(3, 2, 2)).digest() == saved.digest()


def test_a_description_that_names_foreign_code_does_not_run_it(tmp_path, small):
    save_model(small, tmp_path)
    changed(tmp_path, address="python:antigravity:fly")
    with pytest.raises(Misuse, match="never executes"):
        load_model(tmp_path)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, small, name):
    save_model(small, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(Misuse, match=f"holds no {name}"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("kept", [0, 100])
def test_a_truncated_file_is_named(tmp_path, small, name, kept):
    save_model(small, tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(Misuse, match=f"{name} is damaged"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"blueprint": {}}'])
def test_a_description_of_something_else_is_named(tmp_path, small, content):
    save_model(small, tmp_path)
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(Misuse, match=r"model\.json is damaged"):
        load_model(tmp_path)


def test_weights_that_changed_by_one_bit_are_noticed(tmp_path, small):
    save_model(small, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["head.bias"][0] = torch.nextafter(tensors["head.bias"][0], torch.tensor(9.0))
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(Misuse, match=r"model\.safetensors is not what model\.json beside it describes"):
        load_model(tmp_path)


def test_class_names_that_changed_are_noticed(tmp_path, small):
    save_model(small, tmp_path)
    changed(tmp_path, classes=["dog", "cat"])
    with pytest.raises(Misuse, match=r"is not what model\.json beside it describes"):
        load_model(tmp_path)


def test_an_architecture_that_fits_not_its_weights_is_named(tmp_path, small):
    save_model(small, tmp_path)
    changed(tmp_path, address="resnet18")
    with pytest.raises(Misuse, match=r"model\.safetensors is a checkpoint of another architecture"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("address", "words"),
    [("timm:resnet_of_old", "has no network 'resnet_of_old'.*written with.*timm"), ("vgg", "unknown here: 'vgg'")],
)
def test_an_architecture_unknown_here_is_named(tmp_path, small, address, words):
    save_model(small, tmp_path)
    changed(tmp_path, address=address)
    with pytest.raises(Misuse, match=rf"model\.json .*{words}"):
        load_model(tmp_path)


def test_timm_is_imported_only_where_it_is_needed():
    opening = "open_model('small', classes='ab', shape=(1, 4, 4))"
    code = f"import sys; from poise.models import open_model; {opening}; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
