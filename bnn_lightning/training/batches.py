"""Batches outside of Lightning's loops, as these would have them: after the hooks of whoever serves them."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch.core.hooks import DataHooks
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor


def batches_on(
    device: torch.device, batches: Iterable[Any], hooks: DataHooks, precision: Precision
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of batches, on a device.

    Args:
        device: of the network.
        batches: of a loader.
        hooks: the data module that serves them, or the module where there is none.
        precision: of the Trainer, in whose type images are.

    Raises:
        ValueError: when a batch holds no images and labels.
    """
    for batch in batches:
        yield images_and_labels(transferred(precision.convert_input(batch), hooks, device))


def transferred(batch: Any, hooks: DataHooks, device: torch.device) -> Any:
    """The batch on a device, after the hooks before and after its transfer."""
    batch = hooks.transfer_batch_to_device(hooks.on_before_batch_transfer(batch, 0), device, 0)
    return hooks.on_after_batch_transfer(batch, 0)


def images_and_labels(batch: Any) -> tuple[Tensor, Tensor]:
    """The first two parts of a batch.

    Raises:
        ValueError: when they are no tensors.
    """
    pair = batch[:2] if isinstance(batch, list | tuple) else ()
    if len(pair) < 2 or not all(isinstance(part, Tensor) for part in pair):
        found = f"({', '.join(type(part).__name__ for part in batch)})" if pair else type(batch).__name__
        raise ValueError(
            f"batch must be (images, labels), two tensors that train_dataloader gives, got {found}; take them out in "
            "your data set's __getitem__ or in collate_fn."
        )
    return pair[0], pair[1]
