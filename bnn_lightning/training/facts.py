"""What a Trainer knows of a run, as an inference needs it."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import (
    ConcatDataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.inference import Step, TrainingFacts
from bnn_lightning.training.batches import batches_on


def training_facts(trainer: Trainer, device: torch.device) -> TrainingFacts:
    """The facts of a run that is about to start."""
    # In mixed precision Lightning clips no gradients of fused steps, and unscales those of fp16 itself.
    clips = trainer.precision == "bf16-mixed" and trainer.gradient_clip_val
    can_fuse = trainer.precision != "16-mixed" and not clips and device.type in ("cpu", "cuda")
    return TrainingFacts(_num_train(trainer), _epochs(trainer), can_fuse, bool(trainer.gradient_clip_val))


def step_of(trainer: Trainer, num_train: int, batch_idx: int) -> Step:
    """Where the batch ``batch_idx`` stands in its run."""
    step = batch_idx // trainer.accumulate_grad_batches
    return Step(trainer.current_epoch, step, _steps(trainer), _epochs(trainer), num_train)


def steps_of_run(trainer: Trainer) -> int:
    """Optimiser steps of a run whose training loader Lightning has set up."""
    return _steps(trainer) * _epochs(trainer)


def _steps(trainer: Trainer) -> int:
    """Optimiser steps in an epoch."""
    if math.isinf(trainer.num_training_batches):
        raise ValueError("the training loader must have a length, because the KL weight is a function of the step.")
    return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)


def share_of_step(trainer: Trainer, batch_idx: int) -> float:
    """What a batch's loss is multiplied by so that the gradients of a step are the mean of those of its batches.

    Lightning divides them by accumulate_grad_batches, also where an epoch has fewer batches left for its last step.
    """
    window = trainer.accumulate_grad_batches
    return window / min(window, trainer.num_training_batches - batch_idx // window * window)


def training_batches(trainer: Trainer, net: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of training images and labels on the device of ``net``, in its format, from the start of the data."""
    source: Any = trainer.datamodule  # type: ignore[attr-defined]
    loader: Any = trainer.train_dataloader
    # Of several processes, Lightning has divided the loaders of torch; an EpochLoader divides itself.
    if source is not None and not hasattr(loader, "dataset"):
        loader = source.train_dataloader()
    hooks = source or trainer.lightning_module
    for x, y in batches_on(trainer.strategy.root_device, loader, hooks, trainer.precision_plugin):
        yield in_format_for(net, x), y


def loss_weights(datamodule: Any, device: torch.device) -> Tensor | None:
    """The weight of each class in the training loss, ``(classes,)``; None where the data module has none."""
    weights = getattr(datamodule, "loss_weights", None)
    return None if weights is None else torch.tensor(weights, device=device)


def _epochs(trainer: Trainer) -> int:
    epochs = trainer.max_epochs
    if epochs is None or epochs < 1:
        raise ValueError(f"max_epochs must be 1 or more, for schedules need its length, got {epochs}.")
    return epochs


def _num_train(trainer: Trainer) -> int:
    """N: what the data module says, or what its loader has."""
    count = getattr(trainer.datamodule, "num_train", None)  # type: ignore[attr-defined]
    if count is not None:
        return count
    _ = trainer.estimated_stepping_batches  # has Lightning set the loader up
    try:
        return distinct_examples(trainer.train_dataloader)
    except (TypeError, AttributeError):
        raise ValueError(
            "num_train cannot be counted; give your data module a num_train, its number of training images."
        ) from None


def distinct_examples(loader: Any) -> int:
    """How many different examples of its data set a loader serves over the epochs: not the length of its sampler.

    A sampler may draw an example often, or a part of the data set, all epochs long (SubsetRandomSampler, weights of 0)
    or another one in each epoch; Lightning's distributed one holds one process's share.
    """
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, DistributedSamplerWrapper):  # one process's share of what another sampler draws
        sampler = sampler.dataset._sampler  # type: ignore[attr-defined]
    count = _distinct(loader.dataset) if hasattr(loader, "dataset") else loader.length  # of an EpochLoader
    if isinstance(sampler, WeightedRandomSampler):
        return min(count, int((sampler.weights > 0).sum()))
    if isinstance(sampler, SubsetRandomSampler):
        return min(count, len(set(map(int, sampler.indices))))
    if sampler is None or isinstance(sampler, DistributedSampler | RandomSampler | SequentialSampler):
        return count
    return min(count, len(sampler))  # of a kind that does not say; at most so many in an epoch


def _distinct(dataset: Any) -> int:
    """The length of a data set, without examples that a Subset or a ConcatDataset has twice."""
    if type(dataset) is Subset:
        return min(len(set(map(int, dataset.indices))), _distinct(dataset.dataset))
    if type(dataset) is ConcatDataset:
        return sum(_distinct(part) for part in {id(part): part for part in dataset.datasets}.values())
    return len(dataset)
