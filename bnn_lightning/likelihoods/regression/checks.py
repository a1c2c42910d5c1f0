"""Checks of outputs and targets before training, and what to say beside a calibration of few examples."""

import torch
from torch import Tensor

from bnn_lightning.likelihoods.regression.calibration import Calibration
from bnn_lightning.likelihoods.search import HIGHEST, LOWEST

ENOUGH_FOR_CALIBRATION = 100
"""Calibration examples below which scale and conformal intervals carry a caveat: the standard deviation of the coverage
of 90 % conformal intervals over calibrations of 100 examples is 3 %, and of the scale 7 %."""


def check_outputs_and_targets(outputs: Tensor, y: Tensor, targets: int, columns: int, of_network: int) -> None:
    """Checks that ``outputs`` are ``(batch, columns)``, and ``y`` finite floats ``(batch, targets)``.

    Args:
        outputs: of the network, with what the likelihood appends.
        y: the labels.
        targets: number of target columns.
        columns: that the outputs must have.
        of_network: how many of them the network itself must give.

    Raises:
        ValueError: when they are not.
    """
    if not y.is_floating_point():
        raise ValueError(
            f"labels must be float numbers (batch, {targets}), got {str(y.dtype).removeprefix('torch.')}; for classes "
            "the likelihood is Categorical, and numbers are made by y.float().unsqueeze(1) in your data set."
        )
    check_shape_of_targets(y, targets)
    if not y.isfinite().all():
        bad = int((~y.isfinite()).any(1).sum())
        raise ValueError(f"labels must be finite, got nan or inf in {bad} of {len(y)} examples.")
    if outputs.dim() != 2 or outputs.shape[1] != columns:
        raise ValueError(
            f"network must have {of_network} outputs for {targets} targets, and {columns} with what the likelihood "
            f"learns beside it, got outputs of shape {tuple(outputs.shape)}; give its class an argument num_outputs, "
            "which the data fill in, and in Python call likelihood.prepare(network)."
        )


def check_shape_of_targets(y: Tensor, targets: int) -> None:
    """Checks that labels are ``(batch, targets)``: others would be broadcast against the outputs.

    Raises:
        ValueError: when they are not.
    """
    if y.dim() != 2 or y.shape[1] != targets:
        cure = "use y.unsqueeze(1) in your data set" if y.dim() == 1 else "give the likelihood as many targets"
        raise ValueError(f"labels must be (batch, {targets}), got the shape {tuple(y.shape)}; {cure}.")


def calibration_caveats(calibration: Calibration) -> list[str]:
    """What to say beside scaled metrics and conformal intervals."""
    caveats = []
    for bound in (LOWEST, HIGHEST):
        if bool(torch.isclose(calibration.std_scale, calibration.std_scale.new_tensor(bound), rtol=1e-3).any()):
            caveats.append(f"scale at its bound {bound:g}")
    if len(calibration.errors) < ENOUGH_FOR_CALIBRATION:
        caveats.append(f"calibrated on only {len(calibration.errors):,} examples")
    return caveats
