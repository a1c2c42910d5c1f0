"""Arrays and tensors of images made 8-bit pixels, channels last: what their axes and numbers mean, by stated rules."""

from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

Layout = Literal["HW", "HWC", "CHW", "NHW", "NHWC", "NCHW"]
"""The axes of an array: images N, height H, width W, channels C."""

_CHANNELS = (1, 3, 4)  # grey, RGB, and RGB with transparency
_PIXELS = "uint8 from 0 to 255 or floats from 0 to 1"


def is_array(value: Any) -> bool:
    """Whether it is an array or a tensor."""
    return isinstance(value, np.ndarray | Tensor)


def images_in(array: np.ndarray | Tensor, layout: Layout | None, channels: int, is_one: bool) -> list[np.ndarray]:
    """The images in an array, each uint8 ``(height, width, 1, 3 or 4)``; views of it where nothing is converted.

    Without a ``layout`` the channels of four axes are the last where that has 1, 3 or 4, or else those before height
    and width. Of three axes they are the last, or of a single image the first; else the array is of several grey ones.

    Args:
        array: uint8, or floats from 0 to 1, which are rounded to 8 bits as the images of training were.
        layout: of its axes; None finds it by their sizes.
        channels: of the network's images.
        is_one: whether it must be a single image.

    Raises:
        ValueError: when the axes may mean several things, or the numbers are no pixels.
    """
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    axes = _layout(array.shape, channels, is_one) if layout is None else _checked(layout, array.shape)
    if is_one and axes.startswith("N"):
        raise ValueError(
            f"images must be single images in a list, got the shape {array.shape} there; give one array of all."
        )
    if 0 in array.shape:
        raise ValueError(f"images must have pixels, got the shape {array.shape}.")
    pixels = _as_8_bits(array)
    pixels = pixels if axes.startswith("N") else pixels[None]
    if "C" not in axes:
        pixels = pixels[..., None]
    elif axes.endswith("CHW"):
        pixels = np.moveaxis(pixels, 1, -1)
    if pixels.shape[-1] not in _CHANNELS:
        raise ValueError(f"images must have 1, 3 or 4 channels, got {pixels.shape[-1]} in the shape {array.shape}.")
    return list(pixels)


def _checked(layout: str, shape: tuple[int, ...]) -> str:
    if layout not in get_args(Layout):
        raise ValueError(f"layout must be one of {', '.join(get_args(Layout))}, got {layout!r}.")
    if len(layout) != len(shape):
        raise ValueError(f"layout must have an axis for each of the shape {shape}, got {layout}.")
    return layout


def _layout(shape: tuple[int, ...], channels: int, is_one: bool) -> str:
    """The layout that the sizes of the axes say."""
    if len(shape) == 2:
        return "HW"
    if len(shape) not in (3, 4):
        raise ValueError(
            f"images must have the axes {', '.join(get_args(Layout))}, got the shape {shape}; give a batch or a list."
        )
    last, before = shape[-1] in _CHANNELS, shape[-3] in _CHANNELS
    if len(shape) == 4:
        if last == before:
            what = "whose channels may come first or last" if last else "without an axis of 1, 3 or 4 channels"
            raise ValueError(f"layout must be NHWC or NCHW for the shape {shape}, {what}, got none.")
        return "NHWC" if last else "NCHW"
    if last and before:
        raise ValueError(f"layout must be HWC, CHW or NHW for the shape {shape}, which may be any, got none.")
    if last:
        return "HWC"
    if before and (is_one or shape[0] == 1):
        return "CHW"
    if before and channels == 3:
        raise ValueError(
            f"layout must be CHW (one picture in colour) or NHW ({shape[0]} grey ones) for the shape {shape}, "
            "which may be both, got none."
        )
    return "NHW"


def _as_8_bits(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        cure = {
            "bool": "255 * images.astype('uint8') makes white and black of it",
            "uint16": "images / 65535 is from 0 to 1",
        }.get(str(array.dtype), "images.astype('uint8') is right where the numbers are from 0 to 255")
        raise ValueError(f"images must be {_PIXELS}, got {array.dtype}; {cure}.")
    low, high = float(array.min()), float(array.max())
    if not 0 <= low <= high <= 1:
        if low != low or high != high:
            cure = "nan is no pixel"
        elif low < 0:
            cure = "do not normalise them, for the checkpoint's own normalisation is applied"
        else:
            cure = "divide them by 255" if high <= 255 else "divide them by the largest number that a pixel can have"
        raise ValueError(f"images must be {_PIXELS}, got floats from {low:.4g} to {high:.4g}; {cure}.")
    return np.rint(255 * array.astype(np.float32, copy=False)).astype(np.uint8)
