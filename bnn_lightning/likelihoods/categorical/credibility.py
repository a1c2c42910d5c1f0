"""Which numbers come from too few images to be believed: temperatures, calibration errors."""

import torch
from torch import Tensor

from bnn_lightning.likelihoods.categorical.calibration import Calibration
from bnn_lightning.likelihoods.categorical.scores import BINS
from bnn_lightning.likelihoods.search import HIGHEST, LOWEST

ENOUGH_FOR_TEMPERATURE = 500
"""Calibration images below which a temperature carries a caveat. With ten classes and 500 images its
standard error was 5 % at an accuracy of 90 %, and 9 % at 99 %; with 250 it was 8 % and, at 99 %, often at its bound,
because hardly any image was predicted wrong."""

ENOUGH_FOR_ECE = 1000
"""Test images below which the ECE carries a caveat. Calibrated predictions of ten classes have an ECE of
0.02 on 1,000 images at an accuracy of 90 %, and of 0.04 at 57 %; on 10,000 images a third of that."""

_SIMULATIONS = 500


def temperature_caveats(calibration: Calibration) -> list[str]:
    """What to say beside the calibrated temperature, and all that is computed at it."""
    caveats = []
    temperature, images = calibration.temperature, len(calibration.correct)
    for bound in (LOWEST, HIGHEST):
        if abs(temperature / bound - 1) < 1e-3:
            caveats.append(f"temperature at its bound {bound:g}")
    if images < ENOUGH_FOR_TEMPERATURE:
        caveats.append(f"temperature from only {images:,} images")
    return caveats


def ece_caveats(confidence: Tensor) -> list[str]:
    """What to say beside the ECE of predictions with these confidences, ``(images,)``."""
    images = len(confidence)
    if undefined := int(confidence.isnan().sum()):
        return [f"{undefined:,} of {images:,} predictions are nan, and so are the metrics that average them"]
    if images >= ENOUGH_FOR_ECE:
        return []
    return [f"ECE of only {images:,} images: about {expected_calibration_error(confidence):.3f} even if calibrated"]


def expected_calibration_error(confidence: Tensor) -> float:
    """The mean ECE of perfectly calibrated predictions with these confidences: what the number of images alone makes.

    By 500 simulations with a fixed seed, in which each prediction is right with the probability of its confidence: the
    standard error of the result is below 1 / sqrt(500) of it.

    Args:
        confidence: ``(images,)``.
    """
    confidence = confidence.double()
    generator = torch.Generator().manual_seed(0)
    correct = torch.rand(_SIMULATIONS, len(confidence), generator=generator, dtype=torch.float64) < confidence
    gaps = torch.zeros(_SIMULATIONS, BINS, dtype=torch.float64)
    # As calibration_error has them, with a confidence of exactly 1 in the last one.
    bins = (confidence * BINS).long().clamp_max(BINS - 1)
    gaps.index_add_(1, bins, correct.double() - confidence)
    return (gaps.abs().sum(1).mean() / len(confidence)).item()
