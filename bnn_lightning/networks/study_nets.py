"""Networks of published studies: BaseCNN, SKNet, BatchNormMLP, CIFARNet and BatchBALDNet.

The number in the comment beside a layer is the height and width of its output.
"""

import math
from typing import Any, Literal

from torch import nn

from bnn_lightning.networks.base import Activation, Network


class BaseCNN(Network):
    """BASE of an ablation study, for 28x28 images: LeNet5Caffe without activations after its convolutions.

    431,080 parameters with one channel. ``batch_norm`` adds batch norm after both convolutions and after fc1;
    ``dropout`` adds dropout of rate 1/2 before fc2 (hidden) or, as in the study, to the output of fc2 (logits).
    """

    image_size = 28

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        activation: Activation = "relu",
        batch_norm: bool = False,
        dropout: Literal["none", "hidden", "logits"] = "none",
    ):
        if dropout not in ("none", "hidden", "logits"):
            raise ValueError(f"dropout must be none, hidden or logits, got {dropout!r}.")
        super().__init__(
            activation,
            conv1=nn.Conv2d(in_channels, 20, 5),  # 24
            bn1=batch_norm and nn.BatchNorm2d(20),
            pool1=nn.MaxPool2d(2),  # 12
            conv2=nn.Conv2d(20, 50, 5),  # 8
            bn2=batch_norm and nn.BatchNorm2d(50),
            pool2=nn.MaxPool2d(2),  # 4
            flatten=nn.Flatten(),
            fc1=nn.Linear(50 * 4 * 4, 500),
            bn3=batch_norm and nn.BatchNorm1d(500),
            act3=None,
            dropout_hidden=dropout == "hidden" and nn.Dropout(),
            fc2=nn.Linear(500, num_classes),
            dropout_logits=dropout == "logits" and nn.Dropout(),
        )


class SKNet(Network):
    """SK of the same study as BaseCNN, for 28x28 images: three 3x3 convolutions; batch norm after them and after fc1.

    644,560 parameters at scale 1 with one channel; ``scale`` multiplies the widths of the convolutions, in the study by
    0.2 to 2.
    """

    image_size = 28

    def __init__(
        self, in_channels: int = 1, num_classes: int = 10, activation: Activation = "relu", scale: float = 1.0
    ):
        if not 1 <= 20 * scale < math.inf:
            raise ValueError(f"scale must be a factor of the width such as 0.5, at least 1/20, got {scale}.")
        # Rounded first: 50 * 0.58 is a little below 29.
        first, second = (int(round(width * scale, 6)) for width in (20, 50))
        super().__init__(
            activation,
            conv1=nn.Conv2d(in_channels, first, 3),  # 26
            bn1=nn.BatchNorm2d(first),
            act1=None,
            conv2=nn.Conv2d(first, first, 3),  # 24
            bn2=nn.BatchNorm2d(first),
            pool2=nn.MaxPool2d(2),  # 12
            act2=None,
            conv3=nn.Conv2d(first, second, 3),  # 10
            bn3=nn.BatchNorm2d(second),
            pool3=nn.MaxPool2d(2),  # 5
            flatten=nn.Flatten(),
            fc1=nn.Linear(second * 5 * 5, 500),
            bn4=nn.BatchNorm1d(500),
            act4=None,
            fc2=nn.Linear(500, num_classes),
        )


class BatchNormMLP(Network):
    """The 784-100-100-10 perceptron of a published question about batch norm, for 28x28 images.

    90,010 parameters with one channel and separate batch norm. ``batch_norm`` is none, separate, or shared: then one
    module normalises both hidden layers, which is the mistake that the question is about, and training refuses it
    unless it is told to allow it. He-normal weights, eps 1e-3.
    """

    image_size = 28

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        activation: Activation = "relu",
        batch_norm: Literal["none", "separate", "shared"] = "separate",
    ):
        if batch_norm not in ("none", "separate", "shared"):
            raise ValueError(f"batch_norm must be none, separate or shared, got {batch_norm!r}.")
        first = nn.BatchNorm1d(100, eps=1e-3)
        second = first if batch_norm == "shared" else nn.BatchNorm1d(100, eps=1e-3)
        super().__init__(
            activation,
            flatten=nn.Flatten(),
            fc1=nn.Linear(in_channels * 28 * 28, 100),
            bn1=batch_norm != "none" and first,
            act1=None,
            fc2=nn.Linear(100, 100),
            bn2=batch_norm != "none" and second,
            act2=None,
            fc3=nn.Linear(100, num_classes),
        )
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


class CIFARNet(Network):
    """The network of a study of dropout methods on CIFAR-10, 32x32; 438,730 parameters at scale 1.

    Two convolutions with stride 2, and three linear layers without activations between them. ``scale`` multiplies the
    widths of all layers but the last, in the study by 1, 1.5 and 2.
    """

    def __init__(
        self, in_channels: int = 3, num_classes: int = 10, activation: Activation = "softplus", scale: float = 1.0
    ):
        if not 1 <= 32 * scale < math.inf:
            raise ValueError(f"scale must be a factor of the width such as 1.5, at least 1/32, got {scale}.")
        first, second, hidden = int(32 * scale), int(64 * scale), int(128 * scale)
        super().__init__(
            activation,
            conv1=nn.Conv2d(in_channels, first, 3, stride=2),  # 15
            act1=None,
            conv2=nn.Conv2d(first, second, 3, stride=2),  # 7
            act2=None,
            flatten=nn.Flatten(),
            fc1=nn.Linear(second * 7 * 7, hidden),
            fc2=nn.Linear(hidden, hidden),
            fc3=nn.Linear(hidden, num_classes),
        )
        linear: Any = (self.fc1, self.fc2, self.fc3)
        for layer in linear:
            # He-normal weights compensate for softplus's slope of 1/2; no activation follows these layers.
            layer.reset_parameters()


class BatchBALDNet(Network):
    """The network of BatchBALD's experiments on MNIST, for 28x28 images; 184,586 parameters with one channel.

    Two 5x5 convolutions of 32 and 64 channels, and two linear layers (Kirsch et al. 2019, arXiv:1906.08158, section
    4.1). Theirs has dropout of rate 1/2 after both convolutions, of whole channels, and between the linear layers:
    MCDropout(p=0.5, mask="channel") on conv2, fc1 and fc2, whose inputs these are; pooling and ReLU commute with masks
    that are not negative. fc1 is a convolution as large as its image, so that its masks too are of whole channels.
    """

    image_size = 28

    def __init__(self, in_channels: int = 1, num_classes: int = 10, activation: Activation = "relu"):
        super().__init__(
            activation,
            conv1=nn.Conv2d(in_channels, 32, 5),  # 24
            pool1=nn.MaxPool2d(2),  # 12
            act1=None,
            conv2=nn.Conv2d(32, 64, 5),  # 8
            pool2=nn.MaxPool2d(2),  # 4
            act2=None,
            fc1=nn.Conv2d(64, 128, 4),  # 1
            act3=None,
            flatten=nn.Flatten(),
            fc2=nn.Linear(128, num_classes),
        )
