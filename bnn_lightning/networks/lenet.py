"""The LeNets: LeNet-5 for 32x32 images, Caffe's LeNet-5 for 28x28, and LeNet-300-100.

The number in the comment beside a layer is the height and width of its output.
"""

from torch import nn

from bnn_lightning.networks.base import Activation, Network


class LeNet(Network):
    """LeNet-5 for 32x32 images: two convolutions and three linear layers; 61,706 parameters with one channel."""

    def __init__(self, in_channels: int = 1, num_classes: int = 10, activation: Activation = "relu"):
        super().__init__(
            activation,
            conv1=nn.Conv2d(in_channels, 6, 5),  # 28
            pool1=nn.MaxPool2d(2),  # 14
            act1=None,
            conv2=nn.Conv2d(6, 16, 5),  # 10
            pool2=nn.MaxPool2d(2),  # 5
            act2=None,
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * 5 * 5, 120),
            act3=None,
            fc2=nn.Linear(120, 84),
            act4=None,
            fc3=nn.Linear(84, num_classes),
        )


class LeNet5Caffe(Network):
    """Caffe's LeNet-5 for 28x28 images: two convolutions, two linear layers; 431,080 parameters with one channel."""

    image_size = 28

    def __init__(self, in_channels: int = 1, num_classes: int = 10, activation: Activation = "relu"):
        super().__init__(
            activation,
            conv1=nn.Conv2d(in_channels, 20, 5),  # 24
            pool1=nn.MaxPool2d(2),  # 12
            act1=None,
            conv2=nn.Conv2d(20, 50, 5),  # 8
            pool2=nn.MaxPool2d(2),  # 4
            act2=None,
            flatten=nn.Flatten(),
            fc1=nn.Linear(50 * 4 * 4, 500),
            act3=None,
            fc2=nn.Linear(500, num_classes),
        )


class LeNet300100(Network):
    """The LeNet-300-100 perceptron for 28x28 images; 266,610 parameters with one channel."""

    image_size = 28

    def __init__(self, in_channels: int = 1, num_classes: int = 10, activation: Activation = "relu"):
        super().__init__(
            activation,
            flatten=nn.Flatten(),
            fc1=nn.Linear(in_channels * 28 * 28, 300),
            act1=None,
            fc2=nn.Linear(300, 100),
            act2=None,
            fc3=nn.Linear(100, num_classes),
        )
