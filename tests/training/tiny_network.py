"""A network whose checkpoints are small enough to be committed."""

from torch import nn


class TinyNet(nn.Sequential):
    """1,110 parameters for MNIST5k's digits of 28 pixels, with batch norm."""

    def __init__(self, in_channels: int = 1, num_classes: int = 10):
        super().__init__(
            nn.Conv2d(in_channels, 4, 4, stride=4),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(36, 20),
            nn.ReLU(),
            nn.Linear(20, num_classes),
        )
