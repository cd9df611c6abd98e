import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from poise.core.modes import evaluating
from poise.models import open_model


def test_small_learns_digits_within_seconds():
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    labels = torch.tensor(labels)
    classifier = open_model("small", classes=[str(i) for i in range(10)], shape=(1, 8, 8))
    optimizer = torch.optim.Adam(classifier.parameters(), lr=3e-3)
    for epoch in range(4):
        for rows in ((torch.arange(1200) * 7 + epoch) % 1200).view(24, 50):
            optimizer.zero_grad()
            functional.cross_entropy(classifier(images[rows]), labels[rows]).backward()
            optimizer.step()
    with evaluating(classifier), torch.no_grad():
        accuracy = (classifier(images[1200:]).argmax(1) == labels[1200:]).double().mean()
    assert accuracy > 0.9


def test_small_halves_the_image_once():
    network = open_model("small", classes="ab", shape=(2, 8, 8)).network
    assert network.features(torch.zeros(1, 2, 8, 8)).shape == (1, 64, 4, 4)


def test_resnet18_is_the_one_of_the_literature():
    network = open_model("resnet18", classes=[str(i) for i in range(10)], shape=(3, 32, 32)).network
    assert sum(p.numel() for p in network.parameters()) == 11_173_962  # the usual count for CIFAR-10
    names = network.state_dict()
    assert {"conv1.weight", "layer2.0.shortcut.0.weight", "layer2.0.shortcut.1.running_var", "linear.bias"} <= set(
        names
    )
    assert not any(name.startswith("layer1.0.shortcut") for name in names)


def test_resnet18_keeps_its_resolution_until_the_second_stage():
    network = open_model("resnet18", classes="ab", shape=(1, 8, 8)).network.eval()
    features = network.layer1(network.bn1(network.conv1(torch.zeros(1, 1, 8, 8))))
    assert features.shape == (1, 64, 8, 8)
    assert network.layer4(network.layer3(network.layer2(features))).shape == (1, 512, 1, 1)
