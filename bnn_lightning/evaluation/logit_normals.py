"""Samples of outputs of which mean and variance are known, by normals that are the same for every image."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

SAMPLES = 128
"""Of the outputs of each image under ``moments``, where they cost no pass of the network."""


def samples_with(mean: Tensor, variance: Tensor, samples: int, seed: int) -> Tensor:
    """Samples of N(mean, diag variance), ``(samples, batch, outputs)``, whose mean and variance are exactly these.

    A sample is mean + sqrt(variance) z with the same z for all images: a function of the image, as a weight draw is.

    Args:
        mean: ``(batch, outputs)``.
        variance: likewise.
        samples: how many; an even number.
        seed: of z.
    """
    return moved_by(normals(samples, mean.shape[-1], seed).to(mean), mean, variance)


def moved_by(z: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """The samples mean + sqrt(variance) z, ``(samples, batch, outputs)``, with the z of :func:`normals`."""
    return mean + variance.clamp_min(0).sqrt() * z


def normals(samples: int, outputs: int, seed: int) -> Tensor:
    """The z of :func:`samples_with`, ``(samples, 1, outputs)``, float64."""
    drawn = _normals(samples, min(outputs, SobolEngine.MAXDIM), seed)
    return drawn[:, None, torch.arange(outputs) % drawn.shape[-1]]


@lru_cache
def _normals(samples: int, outputs: int, seed: int) -> Tensor:
    """Quasi-random normals ``(samples, outputs)``: Sobol's points and their negatives, each column of variance 1.

    In 10 dimensions their error in E[softmax] is that of some 500 independent draws.
    """
    points = SobolEngine(outputs, scramble=True, seed=seed).draw(samples // 2, dtype=torch.float64)
    tail = torch.finfo(torch.float32).eps  # Sobol's points may be 0
    half = torch.special.ndtri(points.clamp(tail, 1 - tail))
    normals = torch.cat([half, -half])
    return normals / normals.square().mean(0).sqrt()
