"""Residual networks: ResNet-20, ResNet-18 and wide ones, with batch norm, group norm or filter response norm.

Names of layers are torchvision's, so that its trained weights load by name. Convolutions begin with He-normal weights
(He et al. 2015, arXiv:1502.01852, eq. 14, by the outputs), as those networks were published with.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from bnn_lightning.core.moments import Rule, moment_rule
from bnn_lightning.core.moments.activations import Above
from bnn_lightning.core.moments.norms import InputNorm
from bnn_lightning.networks.base import Network

Norm = Literal["batch", "group", "frn"]

_LARGE = 96  # pixels a side, from which ResNet18 begins with a 7x7 convolution of stride 2, as torchvision's does
_GROUP = 8  # channels that group norm normalises together


class FilterResponseNorm(nn.Module):
    """y = gamma x / sqrt(mean of x^2 over an image's channel + eps) + beta, of any shape ``(batch, channels, ...)``.

    Neither other images nor other channels enter, so that a prediction does not depend on a batch, and no running
    statistics follow the noise of the weights. Singh & Krishnan 2020 (arXiv:1911.09737), eq. 1; a
    :class:`ThresholdedReLU` belongs after it.
    """

    is_channelwise = True

    def __init__(self, channels: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        over = tuple(range(2, x.dim()))
        # Squares of half-precision activations would overflow.
        power = (x.float() if x.dtype.itemsize < 4 else x).square()
        if over:  # a mean over no axes would be one over all of them
            power = power.mean(over, keepdim=True)
        shape = (-1, *(1,) * len(over))
        return (x * (power + self.eps).rsqrt()).to(x.dtype) * self.weight.view(shape) + self.bias.view(shape)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}"


class ThresholdedReLU(nn.Module):
    """max(x, tau) with a learnt tau for each channel: the activation after :class:`FilterResponseNorm` (eq. 3)."""

    is_channelwise = True

    def __init__(self, channels: int):
        super().__init__()
        self.tau = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x, self.tau.view(-1, *(1,) * (x.dim() - 2)))

    def extra_repr(self) -> str:
        return f"{len(self.tau)}"


@moment_rule(FilterResponseNorm)
def _response_norm(layer: FilterResponseNorm) -> Rule:
    return InputNorm(layer, layer.eps, len(layer.weight), centred=False)


@moment_rule(ThresholdedReLU)
def _thresholded(layer: ThresholdedReLU) -> Rule:
    return Above(layer.tau)


class BasicBlock(nn.Module):
    """act(norm(conv(act(norm(conv(x))))) + x), two 3x3 convolutions (He et al. 2016, arXiv:1512.03385, figure 2)."""

    def __init__(self, channels: int, width: int, stride: int, norm: Norm):
        super().__init__()
        self.conv1, self.bn1, self.relu = _conv(channels, width, stride), _norm(norm, width), _activation(norm, width)
        self.conv2, self.bn2, self.relu2 = _conv(width, width), _norm(norm, width), _activation(norm, width)
        changes = stride > 1 or channels != width
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), _norm(norm, width)) if changes else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu2(y + (x if self.downsample is None else self.downsample(x)))


class PreActivationBlock(nn.Module):
    """conv(act(norm(conv(act(norm(x)))))) + x (Zagoruyko & Komodakis 2016, arXiv:1605.07146, figure 1)."""

    def __init__(self, channels: int, width: int, stride: int, norm: Norm):
        super().__init__()
        self.bn1, self.relu1, self.conv1 = (
            _norm(norm, channels),
            _activation(norm, channels),
            _conv(channels, width, stride),
        )
        self.bn2, self.relu2, self.conv2 = _norm(norm, width), _activation(norm, width), _conv(width, width)
        changes = stride > 1 or channels != width
        self.downsample = nn.Conv2d(channels, width, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        return self.conv2(self.relu2(self.bn2(self.conv1(y)))) + shortcut


class ResNet20(Network):
    """ResNet-20 for 32x32 images: 3 stages of 3 blocks, 16 to 64 channels; 272,474 parameters for RGB images.

    He et al. 2016 (arXiv:1512.03385), section 4.2, with 1x1 convolutions where a shortcut changes the shape.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, norm: Norm = "batch"):
        _check_norm(norm)
        super().__init__(
            "relu",
            conv1=_conv(in_channels, 16),
            bn1=_norm(norm, 16),
            relu=_activation(norm, 16),
            layer1=_stage(BasicBlock, 3, 16, 16, 1, norm),
            layer2=_stage(BasicBlock, 3, 16, 32, 2, norm),
            layer3=_stage(BasicBlock, 3, 32, 64, 2, norm),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(64, num_classes),
        )
        _he_normal(self)


class ResNet18(Network):
    """ResNet-18; 11,173,962 parameters for RGB images of 32x32 pixels and ten classes.

    Images of less than 96 pixels a side begin with a 3x3 convolution; larger ones with a 7x7 convolution of stride 2
    and max pooling, as in He et al. 2016 (arXiv:1512.03385), table 1: that is torchvision's ``resnet18``, whose weights
    load by name.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, image_size: int = 32, norm: Norm = "batch"):
        _check_norm(norm)
        is_large = image_size >= _LARGE
        stem = nn.Conv2d(in_channels, 64, 7, 2, 3, bias=False) if is_large else _conv(in_channels, 64)
        super().__init__(
            "relu",
            conv1=stem,
            bn1=_norm(norm, 64),
            relu=_activation(norm, 64),
            maxpool=is_large and nn.MaxPool2d(3, 2, 1),
            layer1=_stage(BasicBlock, 2, 64, 64, 1, norm),
            layer2=_stage(BasicBlock, 2, 64, 128, 2, norm),
            layer3=_stage(BasicBlock, 2, 128, 256, 2, norm),
            layer4=_stage(BasicBlock, 2, 256, 512, 2, norm),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(512, num_classes),
        )
        self.image_size = image_size
        _he_normal(self)


class WideResNet(Network):
    """WRN-depth-width for 32x32 images; 36,479,194 parameters at depth 28 and width 10 for RGB images.

    Three stages of (depth - 4) / 6 blocks with 16, 32 and 64 times ``width`` channels. Zagoruyko & Komodakis 2016
    (arXiv:1605.07146), table 1.
    """

    def __init__(
        self, in_channels: int = 3, num_classes: int = 10, depth: int = 28, width: int = 10, norm: Norm = "batch"
    ):
        _check_norm(norm)
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 4, such as 16, 22 or 28, got {depth}.")
        if width < 1:
            raise ValueError(f"width must be 1 or more, got {width}.")
        widths = [16 * width, 32 * width, 64 * width]
        super().__init__(
            "relu",
            conv1=_conv(in_channels, 16),
            layer1=_stage(PreActivationBlock, blocks, 16, widths[0], 1, norm),
            layer2=_stage(PreActivationBlock, blocks, widths[0], widths[1], 2, norm),
            layer3=_stage(PreActivationBlock, blocks, widths[1], widths[2], 2, norm),
            bn1=_norm(norm, widths[2]),
            relu=_activation(norm, widths[2]),
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(widths[2], num_classes),
        )
        _he_normal(self)


def _stage(
    block: type[BasicBlock | PreActivationBlock], count: int, channels: int, width: int, stride: int, norm: Norm
) -> nn.Sequential:
    """``count`` blocks, of which the first changes channels and size."""
    first = block(channels, width, stride, norm)
    return nn.Sequential(first, *(block(width, width, 1, norm) for _ in range(count - 1)))


def _conv(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, stride, 1, bias=False)


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // _GROUP, channels) if norm == "group" else FilterResponseNorm(channels)


def _activation(norm: Norm, channels: int) -> nn.Module:
    return ThresholdedReLU(channels) if norm == "frn" else nn.ReLU()


def _check_norm(norm: str) -> None:
    if norm not in ("batch", "group", "frn"):
        raise ValueError(f"norm must be batch, group or frn, got {norm!r}.")


def _he_normal(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
