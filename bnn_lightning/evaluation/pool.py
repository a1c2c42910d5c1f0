"""All outputs of all samples for a pool of images, in memory or, where they are many, mapped from a temporary file."""

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor

from bnn_lightning.evaluation.sampler import Sampler

_MAX_BYTES = 2**28  # of outputs that are kept in memory


def pool_outputs(sampler: Sampler, batches: Iterable[Tensor], count: int) -> Tensor:
    """Outputs ``(samples, images, outputs)`` on the CPU, float32.

    Args:
        sampler: draws the samples.
        batches: inputs ``(batch, ...)`` on the network's device.
        count: of all images.

    Raises:
        OSError: when the disk has no room for so many.
    """
    outputs = torch.zeros(0, 0, 0)
    done = 0
    for batch_idx, x in enumerate(batches):
        of_batch = sampler(x, batch_idx).float().cpu().transpose(0, 1)  # an image's outputs side by side
        if done == 0:
            outputs = _room_for((count, *of_batch.shape[1:]))
        outputs[done : done + len(x)] = of_batch
        done += len(x)
    return outputs[:done].transpose(0, 1)


def _room_for(shape: tuple[int, ...]) -> Tensor:
    numbers = torch.Size(shape).numel()
    if 4 * numbers <= _MAX_BYTES:
        return torch.empty(shape)
    descriptor, path = tempfile.mkstemp(prefix="bnn_pool_")
    try:
        if hasattr(os, "posix_fallocate"):  # a mapped file that outgrows the disk would end the process
            os.posix_fallocate(descriptor, 0, 4 * numbers)
    except OSError as error:
        os.unlink(path)
        reason = f"{error.strerror}; outputs take {4e-9 * numbers:.2g} GB, and TMPDIR names another folder"
        raise OSError(error.errno, reason, path) from error
    finally:
        os.close(descriptor)
    mapped = torch.from_file(path, shared=True, size=numbers)
    with suppress(OSError):  # Windows does not part with a file that is mapped; it lies among those of the system's
        os.unlink(path)
    return mapped.view(shape)
