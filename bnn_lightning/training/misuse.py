"""What shows that a module is called with images that nobody has prepared, and what is said then."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.preprocessing.scaling import Scaling

_CURE = "bnn_lightning.Predictor.load(checkpoint)(images) prepares images as those of training were, and draws samples"


def bounds_of(data: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """The lowest and the highest number of images that are normalised as a checkpoint says; None where none are."""
    if not data or "channels" not in data or not data.get("mean"):
        return None
    return Scaling(data["mean"], data["std"]).bounds


def check_prepared(x: Tensor, bounds: tuple[float, float] | None) -> None:
    """Warns of images that cannot have been normalised as those of training were.

    Numbers beyond the bounds cannot; those of an image that is normalised lie on both sides of 0, where its mean is.

    Args:
        x: what a network is called with.
        bounds: of :func:`bounds_of`.

    Raises:
        ValueError: when it is of pixels that are no floats.
    """
    if x.dtype == torch.uint8:
        raise ValueError(f"x must be normalised images in floats, got uint8; {_CURE}.")
    if bounds is None or not x.is_floating_point() or not x.numel():
        return
    (low, high), (least, most) = bounds, (value.item() for value in torch.aminmax(x))
    margin = 0.01 * (high - low)
    outside = least < low - margin or most > high + margin
    between = low < -margin and high > 1 + margin and 0 <= least <= most <= 1
    if outside or between:
        warnings.warn(
            f"images from {least:.3g} to {most:.3g} are not normalised as the checkpoint has them, from {low:.3g} to "
            f"{high:.3g}; {_CURE}.",
            stacklevel=5,  # of the call, behind two frames of torch's Module
        )


def refuse_without_trainer(module: Any) -> None:
    """Raises RuntimeError where a step is called that a Trainer has not begun."""
    if not hasattr(module, "_sampler"):
        raise RuntimeError(f"predict_step must be called by a Trainer; {_CURE}.")
