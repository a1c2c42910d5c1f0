"""How images lie in memory, and how much of it the allocator keeps."""

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """Images ``(batch, channels, height, width)`` in the memory format that convolutions are fastest in."""
    if x.dim() != 4:
        return x
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    # With one channel both formats are the same memory; only strides tell the first convolution which is meant.
    batch, _, height, width = x.shape
    return x.contiguous().view(batch, height, width, 1).permute(0, 3, 1, 2)


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is images that convolutions take for channels_last ones."""
    return x.dim() == 4 and x.stride(1) == 1 and x.stride(3) == x.shape[1]


def like(x: Tensor, other: Tensor) -> Tensor:
    """``x`` in the memory format of ``other``, which has the same shape."""
    return channels_last(x) if is_channels_last(other) else x.contiguous()


def flat(x: Tensor) -> Tensor:
    """The numbers of ``x`` in the order of memory, where that is one of the two formats: a view."""
    return x.permute(0, 2, 3, 1).reshape(-1) if is_channels_last(x) else x.reshape(-1)


def shaped(values: Tensor, x: Tensor) -> Tensor:
    """What :func:`flat` took apart, in the shape and memory format of ``x``: a view."""
    if is_channels_last(x):
        batch, channels, height, width = x.shape
        return values.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return values.view(x.shape)
