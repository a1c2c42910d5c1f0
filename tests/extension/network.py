"""ScaledNet: a small convolutional network that ends in as many outputs as it is asked for."""

from torch import Tensor, nn

from tests.extension.layer_kind import Scale


class ScaledNet(nn.Module):
    """A network with a residual sum, which is no chain.

    Args:
        in_channels: of the images.
        num_classes: outputs; the command line fills in those of the data.
        outputs: outputs where labels are no classes.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10, outputs: int | None = None):
        super().__init__()
        self.conv1, self.scale = nn.Conv2d(in_channels, 8, 3, stride=2), Scale(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.act, self.pool = nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(3)
        self.head = nn.Linear(72, num_classes if outputs is None else outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.scale(self.conv1(x)))
        x = self.act(self.conv2(x) + x)
        return self.head(self.pool(x).flatten(1))
