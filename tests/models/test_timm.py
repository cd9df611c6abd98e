import pytest
import timm
import torch
from safetensors.torch import save_file

from poise.core.misuse import Misuse
from poise.models import open_model
from poise.models.timm_networks import configuration


def seeded(name, **options):
    with torch.random.fork_rng():
        torch.manual_seed(99)
        return timm.create_model(name, **options).eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_a_local_file_is_laid_over_bit_by_bit(tmp_path, images, name):
    original = seeded(name)
    save_file(original.state_dict(), tmp_path / "w.safetensors")
    classifier = open_model(f"timm:{name}", weights=tmp_path / "w.safetensors", shape=(3, 32, 32)).eval()
    config = original.pretrained_cfg
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    assert torch.equal(classifier(images), original((images - mean) / std))
    assert classifier.num_classes == 1000
    assert classifier.notes == ()
    assert "state_dict" not in classifier.network.pretrained_cfg


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])
def test_another_class_count_keeps_the_backbone(tmp_path, name):
    original = seeded(name, num_classes=7)
    torch.save({"state_dict": original.state_dict()}, tmp_path / "w.pth")
    classifier = open_model(f"timm:{name}", weights=tmp_path / "w.pth", classes="abc", shape=(3, 32, 32))
    assert classifier.notes[0] == "head replaced: 7 classes in w.pth, 3 here"
    backbone = {id(p) for p in classifier.parameters()} - {id(p) for p in classifier.head_parameters()}
    theirs = dict(original.named_parameters())
    kept = [n for n, p in classifier.network.named_parameters() if id(p) in backbone]
    assert len(kept) == len(theirs) - 2
    assert all(torch.equal(classifier.network.get_parameter(name), theirs[name]) for name in kept)
    assert sum(p.numel() for p in classifier.head_parameters()) == (classifier.network.num_features + 1) * 3


def test_a_file_without_a_head_gets_one(tmp_path):
    torch.save(seeded("test_vit", num_classes=0).state_dict(), tmp_path / "w.pt")
    classifier = open_model("timm:test_vit", weights=tmp_path / "w.pt", classes="abc")
    assert classifier.notes == ("head replaced: 0 classes in w.pt, 3 here",)
    with pytest.raises(Misuse, match="timm:test_vit has no classes of its own"):
        open_model("timm:test_vit", weights=tmp_path / "w.pt")


def test_grey_images_see_what_grey_colours_show(tmp_path):
    original = seeded("test_resnet")  # its mean and std are 0.5 in every channel, so that grey is exact
    torch.save(original.state_dict(), tmp_path / "w.pt")
    classifier = open_model("timm:test_resnet", weights=tmp_path / "w.pt", shape=(1, 32, 32)).eval()
    grey = torch.rand(2, 1, 32, 32)
    expected = original((grey.expand(-1, 3, -1, -1) - 0.5) / 0.5)
    assert classifier.blueprint.mean == (0.5,)
    assert torch.allclose(classifier(grey), expected, atol=1e-4)


def test_grey_weights_stay_as_they_are(tmp_path):
    original = seeded("test_resnet", in_chans=1)
    torch.save(original.state_dict(), tmp_path / "w.pt")
    classifier = open_model("timm:test_resnet", weights=tmp_path / "w.pt", shape=(1, 32, 32))
    assert torch.equal(classifier.network.conv1[0].weight, original.conv1[0].weight)
    colour = open_model("timm:test_resnet", weights=tmp_path / "w.pt", shape=(3, 32, 32))
    assert torch.allclose(colour.network.conv1[0].weight.sum(1, keepdim=True), original.conv1[0].weight, atol=1e-6)


def test_old_names_go_through_timms_own_filter(tmp_path):
    original = seeded("swin_tiny_patch4_window7_224", num_classes=3, embed_dim=24, depths=(1, 1), num_heads=(2, 2))
    old = {}
    for name, tensor in original.state_dict().items():
        old[name.replace("head.fc", "head").replace("layers.1.downsample", "layers.0.downsample")] = tensor
    torch.save({"model": old}, tmp_path / "w.pth")
    options = {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2]}
    address = "timm:swin_tiny_patch4_window7_224"
    classifier = open_model(address, weights=tmp_path / "w.pth", shape=(3, 32, 32), options=options)
    found = classifier.network.state_dict()
    assert found.keys() == original.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in original.state_dict().items())
    assert classifier.size == (224, 224)
    assert "state_dict" not in classifier.network.pretrained_cfg


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "dla34"])  # dla loads without insisting on every name
def test_another_architecture_is_named(tmp_path, name):
    torch.save(seeded("test_convnext").state_dict(), tmp_path / "w.pt")
    line = r"w.pt is a checkpoint of another architecture: \d+ tensors missing \(first: .*\), \d+ unexpected \(first: "
    with pytest.raises(Misuse, match=line):
        open_model(f"timm:{name}", weights=tmp_path / "w.pt", shape=(3, 32, 32))


def test_a_vit_resizes_inside_and_gradients_pass(images):
    classifier = open_model("timm:test_vit", weights="random", classes="ab", shape=(3, 32, 32)).eval()
    assert classifier.size == (160, 160)
    images.requires_grad_(True)
    large = torch.nn.functional.interpolate((images - 0.5) / 0.5, size=(160, 160), mode="bilinear")
    logits = classifier(images)
    assert torch.allclose(logits, classifier.network(large), atol=1e-5)
    logits.sum().backward()
    assert (images.grad != 0).double().mean() > 0.99


def test_a_network_that_takes_any_size_is_left_alone():
    assert open_model("timm:test_resnet", weights="random", classes="ab", shape=(3, 32, 32)).size is None


def test_a_network_built_for_the_data_does_not_resize():
    options = {"img_size": 32, "patch_size": 4}
    classifier = open_model("timm:test_vit", weights="random", classes="ab", shape=(3, 32, 32), options=options)
    assert classifier.size == (32, 32)
    assert classifier.network.patch_embed.num_patches == 64


def test_without_a_shape_the_networks_own_counts():
    classifier = open_model("timm:test_vit", weights="random")
    assert classifier.blueprint.shape == (3, 160, 160)
    assert classifier.num_classes == configuration("test_vit").num_classes


def test_options_that_a_network_does_not_take_are_named():
    with pytest.raises(Misuse, match=r"timm:test_vit does not take the options \{'wings': 2\}"):
        open_model("timm:test_vit", weights="random", classes="ab", options={"wings": 2})


def test_an_unreachable_hub_says_what_would_work(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("Name or service not known.\nmore lines")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    line = (
        r"^the weights of timm:test_resnet could not be had from timm/test_resnet.r160_in1k on the hub "
        r"\(OSError: Name or service not known\), and are not in its local cache; "
        r"give a file of them as --weights FILE$"
    )
    with pytest.raises(Misuse, match=line):
        open_model("timm:test_resnet", classes="ab")


def test_weights_of_the_hub_are_loaded_and_get_the_wanted_head(monkeypatch):
    original = seeded("test_resnet")
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: original.state_dict())
    classifier = open_model("timm:test_resnet", classes="ab", shape=(3, 32, 32))
    assert torch.equal(classifier.network.conv1[0].weight, original.conv1[0].weight)
    assert classifier.notes == ("head replaced: 1000 classes in timm:test_resnet, 2 here",)
    assert open_model("timm:test_resnet", shape=(3, 32, 32)).num_classes == 1000
