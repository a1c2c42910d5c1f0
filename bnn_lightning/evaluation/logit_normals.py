"""Samples of outputs of which mean and (co)variance are known, by normals that are the same for every image."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

SAMPLES = 128
"""Of the outputs of each image under ``moments``, where they cost no pass of the network."""

_TINY = 1e-18  # beside standard deviations
_ADDED = 1e-5  # to the diagonal of correlations


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


def has_correlated_samples(samples: int, outputs: int) -> bool:
    """Whether there are enough samples for the covariance to be exact, see :func:`uncorrelated_normals`."""
    return 2 * outputs < samples


def correlated_samples(mean: Tensor, covariance: Tensor, samples: int, seed: int) -> Tensor:
    """Samples of N(mean, covariance), ``(samples, batch, outputs)``: variances are exact, correlations within 1e-5.

    A sample is mean + D L z with D^2 = diag covariance, L the Cholesky factor of the correlations, and the same z for
    all images.

    Args:
        mean: ``(..., outputs)``.
        covariance: ``(..., outputs, outputs)``.
        samples: how many; an even number, above twice that of outputs.
        seed: of z.
    """
    return correlated_by(uncorrelated_normals(samples, mean.shape[-1], seed).to(mean), mean, covariance)


def correlated_by(z: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """The samples of :func:`correlated_samples`, with the z of :func:`uncorrelated_normals`."""
    std = covariance.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    scale = 1 / (std + _TINY)
    correlation = covariance * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    # Rounding may leave it slightly indefinite; rows of unit length keep the variances exact beside what is added.
    # Where there is no variance the factor is of what is added alone.
    factor = cholesky(correlation + _ADDED * torch.eye(mean.shape[-1]).to(mean))
    factor = factor * (std / factor.square().sum(-1).sqrt()).unsqueeze(-1)
    flat = torch.addmm(mean.reshape(-1), z, factor.flatten(0, -2).T)
    return flat.view(len(z), *mean.shape)


def cholesky(matrix: Tensor) -> Tensor:
    """The lower factor L of a positive definite matrix L L^T, ``(..., n, n)``.

    In a graph that is exported it is made of sums and products, column after column: ONNX has no operator for it.
    """
    if not torch.compiler.is_exporting():
        return torch.linalg.cholesky_ex(matrix).L
    columns = []
    for number in range(matrix.shape[-1]):
        column = matrix[..., number] * matrix[..., number, number].clamp_min(_TINY).rsqrt().unsqueeze(-1)
        matrix = matrix - column.unsqueeze(-1) * column.unsqueeze(-2)
        columns.append(column)
    return torch.stack(columns, -1).tril()


def uncorrelated_normals(samples: int, outputs: int, seed: int) -> Tensor:
    """The z of :func:`correlated_samples`, ``(samples, outputs)``, float64: their covariance is exactly 1."""
    return _normals(samples, outputs, seed, uncorrelated=True)


@lru_cache
def _normals(samples: int, outputs: int, seed: int, uncorrelated: bool = False) -> Tensor:
    """Quasi-random normals ``(samples, outputs)``: Sobol's points and their negatives, each column of variance 1.

    In 10 dimensions their error in E[softmax] is that of some 500 independent draws.

    Args:
        samples: how many.
        outputs: columns.
        seed: of Sobol's points.
        uncorrelated: whether columns have no correlation either: there must be fewer than half of the samples.
    """
    points = SobolEngine(outputs, scramble=True, seed=seed).draw(samples // 2, dtype=torch.float64)
    tail = torch.finfo(torch.float32).eps  # Sobol's points may be 0
    half = torch.special.ndtri(points.clamp(tail, 1 - tail))
    if uncorrelated:
        factor = torch.linalg.cholesky(half.T @ half / len(half))
        half = torch.linalg.solve_triangular(factor, half.T, upper=False).T
    normals = torch.cat([half, -half])
    return normals / normals.square().mean(0).sqrt()
