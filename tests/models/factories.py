"""What a stranger's module may hold: the targets of `python:` addresses in these tests."""

import torch
from torch import nn


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def sized(num_classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))


def demanding(width):
    return nn.Linear(width, 2)


def number():
    return 3


class Scores(nn.Module):
    def forward(self, images):
        return images.flatten(1).sum(dim=1)


def touch():
    return torch.zeros(1)


def exact():
    """Convolutions in double precision, without batch norm or dropout: nothing that depends on how a batch is cut."""
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10)).double()


def normalised():
    """Repeated blocks with batch norm, in double precision."""
    blocks = [nn.Sequential(nn.Conv2d(inner, 4, 3), nn.BatchNorm2d(4), nn.ReLU()) for inner in (1, 4)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64, 10)).double()


def digits_network():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def stubborn_network():
    """Says class 3 whatever it sees."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(network[1].weight)
    nn.init.zeros_(network[1].bias)
    network[1].bias.data[3] = 1.0
    return network
