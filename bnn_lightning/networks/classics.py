"""Networks from published comparisons: AlexNet for small images, 3Conv3FC, an MLP for images, and one for tables.

The number in the comment beside a layer is the height and width of its output.
"""

from collections.abc import Sequence
from itertools import pairwise

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
        if hidden < 1:
            raise ValueError(f"hidden must be 1 unit or more, got {hidden}.")
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


class TabularMLP(Network):
    """A perceptron for rows of a table, or other inputs, which are flattened: one hidden layer of 50 by default."""

    image_size = None

    def __init__(
        self,
        in_features: int = 1,
        num_outputs: int = 1,
        hidden: Sequence[int] = (50,),
        activation: Activation = "relu",
    ):
        """A linear layer and the activation for each width of ``hidden``, and a linear layer to the outputs.

        Raises:
            ValueError: when a width is below 1, or the activation unknown.
        """
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden must be widths of 1 or more, such as [50], got {list(hidden)}.")
        layers: dict[str, nn.Module | None] = {"flatten": nn.Flatten()}
        widths = [in_features, *hidden]
        for number, (width, next_width) in enumerate(pairwise(widths), start=1):
            layers |= {f"fc{number}": nn.Linear(width, next_width), f"act{number}": None}
        super().__init__(activation, **layers, **{f"fc{len(widths)}": nn.Linear(widths[-1], num_outputs)})
