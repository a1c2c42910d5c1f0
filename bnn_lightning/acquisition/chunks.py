"""Chunks of a pool, in float64 and of bounded size, and the checks of its logits."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

ELEMENTS = 2**20
"""Numbers in the largest tensor that is made of a chunk: 8 MiB in float64, which caches can hold."""


def check_logits(logits: Tensor, name: str) -> None:
    """Checks the logits of samples, ``(samples, pool, classes)``.

    Raises:
        ValueError: when they have another shape, or are not finite; the message begins with ``name``.
    """
    if logits.dim() != 3 or logits.shape[0] < 1 or logits.shape[2] < 2 or not logits.is_floating_point():
        kind = str(logits.dtype).removeprefix("torch.")
        raise ValueError(
            f"{name} must be logits of shape (samples, pool, classes) with one sample and two classes or more, got "
            f"{kind} of shape {tuple(logits.shape)}."
        )
    for start, chunk in chunks(logits):
        finite = chunk.isfinite().all(-1).all(0)
        if not finite.all():
            raise ValueError(
                f"{name} must be finite, got nan or inf for image {start + int((~finite).int().argmax())}."
            )


def chunks(logits: Tensor, elements: int | None = None) -> Iterator[tuple[int, Tensor]]:
    """Parts of a pool along its images, in float64, each with the number of its first image.

    Args:
        logits: ``(samples, pool, classes)``, perhaps mapped from a file.
        elements: numbers that are made of an image; null is those of its logits.
    """
    size = max(1, ELEMENTS // (elements or logits.shape[0] * logits.shape[2]))
    for start in range(0, logits.shape[1], size):
        yield start, logits[:, start : start + size].double()


def over_pool(score: Callable[[Tensor], Tensor], logits: Tensor, elements: int | None = None) -> Tensor:
    """The scores ``(pool,)``, float64, computed chunk by chunk."""
    scores = [score(chunk) for _, chunk in chunks(logits, elements)]
    return torch.cat(scores) if scores else logits.new_zeros(0, dtype=torch.float64)
