"""Larger networks from published comparisons: AlexNet for small images, 3Conv3FC, and an MLP.

The number in the comment beside a layer is the height and width of its output.
"""

from torch import nn

from bnn_lightning.networks.base import Activation, Network


class AlexNet(Network):
    """The small AlexNet for 32x32 images: five convolutions, one linear layer; 2,160,458 parameters for grey images."""

    def __init__(self, in_channels: int = 1, num_classes: int = 10, activation: Activation = "relu"):
        super().__init__(
            activation,
            conv1=nn.Conv2d(in_channels, 64, 11, stride=4, padding=5),  # 8
            pool1=nn.MaxPool2d(2),  # 4
            act1=None,
            conv2=nn.Conv2d(64, 192, 5, padding=2),
            pool2=nn.MaxPool2d(2),  # 2
            act2=None,
            conv3=nn.Conv2d(192, 384, 3, padding=1),
            act3=None,
            conv4=nn.Conv2d(384, 256, 3, padding=1),
            act4=None,
            conv5=nn.Conv2d(256, 128, 3, padding=1),
            pool5=nn.MaxPool2d(2),  # 1
            act5=None,
            flatten=nn.Flatten(),
            fc=nn.Linear(128, num_classes),
        )


class ThreeConvThreeFC(Network):
    """3Conv3FC for 32x32 images; 1,781,034 parameters with one channel."""

    def __init__(self, in_channels: int = 1, num_classes: int = 10, activation: Activation = "relu"):
        super().__init__(
            activation,
            conv1=nn.Conv2d(in_channels, 32, 5, padding=2),  # 32
            pool1=nn.MaxPool2d(3, 2),  # 15
            act1=None,
            conv2=nn.Conv2d(32, 64, 5, padding=2),
            pool2=nn.MaxPool2d(3, 2),  # 7
            act2=None,
            conv3=nn.Conv2d(64, 128, 5, padding=1),  # 5
            pool3=nn.MaxPool2d(3, 2),  # 2
            act3=None,
            flatten=nn.Flatten(),
            fc1=nn.Linear(128 * 2 * 2, 1000),
            act4=None,
            fc2=nn.Linear(1000, 1000),
            act5=None,
            fc3=nn.Linear(1000, num_classes),
        )


class MLP(Network):
    """The 1200-1200 perceptron of Blundell et al. 2015 ("OriginNet"); 2,683,210 parameters at 32x32."""

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        activation: Activation = "relu",
        image_size: int = 32,
        hidden: int = 1200,
    ):
        super().__init__(
            activation,
            flatten=nn.Flatten(),
            fc1=nn.Linear(in_channels * image_size**2, hidden),
            act1=None,
            fc2=nn.Linear(hidden, hidden),
            act2=None,
            fc3=nn.Linear(hidden, num_classes),
        )
        self.image_size = image_size
