"""Checks of logits and labels before training: what cross-entropy takes without a word, or refuses without a cure."""

import torch
from torch import Tensor

from bnn_lightning.wording import counted


def check_logits_and_labels(logits: Tensor, labels: Tensor, num_classes: int | None) -> None:
    """Checks that ``logits`` are ``(batch, classes)``, and ``labels`` class numbers that they have a column for.

    Raises:
        ValueError: when they are not.
    """
    if logits.dim() != 2:
        raise ValueError(f"network must return logits (batch, classes), got outputs of shape {tuple(logits.shape)}.")
    outputs = logits.shape[1]
    _check_kind(labels, outputs)
    if num_classes and outputs != num_classes:
        raise ValueError(
            f"network must have {num_classes} outputs, one for each class of the data, got {outputs}; give its class "
            "an argument num_classes, which the data fill in."
        )
    check_labels(labels, outputs)
    values = logits.detach().double()
    sums_to_one = torch.allclose(
        values.sum(1), torch.ones(len(values), dtype=values.dtype, device=values.device), atol=1e-3
    )
    if outputs > 1 and sums_to_one and bool((values >= 0).all()):
        raise ValueError(
            "network must return logits, got probabilities, which sum to 1: the loss has a softmax of its own; remove "
            "the softmax at the network's end."
        )


def check_labels(labels: Tensor, outputs: int) -> None:
    """Checks that ``labels`` are class numbers ``(batch,)`` that ``outputs`` columns of logits have a place for.

    Raises:
        ValueError: when they are not.
    """
    _check_kind(labels, outputs)
    lowest, highest = (int(number) for number in labels.aminmax())
    if lowest < 0 or highest >= outputs:
        hint = "; class numbers begin at 0" if lowest > 0 and highest - lowest < outputs else ""
        if outputs == 1:
            hint = "; two classes take two outputs, for the loss is that of a softmax and not of a sigmoid"
        raise ValueError(
            f"labels must be from 0 to {outputs - 1} for a network with {counted(outputs, 'output')}, "
            f"got {lowest} to {highest}{hint}."
        )


def _check_kind(labels: Tensor, outputs: int) -> None:
    if labels.dim() == 2 and labels.shape[1] == outputs > 1:
        raise ValueError(
            f"labels must be class numbers (batch,), got one-hot or soft labels {tuple(labels.shape)}; "
            "use y.argmax(1) in your data set."
        )
    if labels.dim() != 1:
        raise ValueError(
            f"labels must be class numbers (batch,), got the shape {tuple(labels.shape)}; "
            "use y.flatten() in your data set."
        )
    if labels.dtype != torch.int64:
        raise ValueError(
            f"labels must be int64 class numbers, got {str(labels.dtype).removeprefix('torch.')}; "
            "use y.long() in your data set."
        )
