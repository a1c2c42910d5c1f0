"""What a network says about sets of images, collected batch by batch and gathered from all processes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from bnn_lightning.evaluation.sampler import Sampler
from bnn_lightning.likelihoods.base import Likelihood, Predictive


@dataclass(frozen=True)
class SetOutputs:
    """What a network says about a set of images, on the CPU, in the order of the set.

    Args:
        summary: of the samples, see :meth:`Likelihood.summary`.
        labels: of the images.
        outputs: of the samples, ``(samples, images, outputs)``; only of the test images, whose errors need them.
        others: what other ways of predicting say, see :meth:`Likelihood.predictive`: ``one_sample``, ``mean_weights``,
            ``kept_weights``.
    """

    summary: Predictive
    labels: Tensor
    outputs: Tensor | None = None
    others: dict[str, Predictive] = field(default_factory=dict)


class Collector:
    """Collects the :class:`SetOutputs` of several sets, of which the first is the test set.

    Args:
        likelihood: of the labels.
        sampler: the samples that are tested.
        others: other ways of predicting the test set, by name.
        device: of the network, where processes exchange tensors.
    """

    def __init__(
        self, likelihood: Likelihood, sampler: Sampler, others: Mapping[str, Sampler], device: torch.device
    ) -> None:
        self.likelihood, self.sampler, self.others, self.device = likelihood, sampler, others, device
        self._batches: dict[int, list[dict[str, Tensor]]] = {}

    def add(self, x: Tensor, labels: Tensor, batch_idx: int, set_idx: int) -> None:
        """Takes a batch of set ``set_idx``."""
        outputs = self.sampler(x, batch_idx)
        parts = {f"summary/{name}": values for name, values in self.likelihood.summary(outputs).items()}
        parts["labels"] = labels
        if set_idx == 0:
            parts["outputs"] = outputs.transpose(0, 1)
            ways = {"one_sample": outputs[:1]} if len(outputs) > 1 else {}
            ways |= {name: sampler(x) for name, sampler in self.others.items()}
            for name, outputs_of in ways.items():
                predictive = self.likelihood.predictive(outputs_of)
                parts |= {f"others/{name}/{key}": values for key, values in predictive.items()}
        self._batches.setdefault(set_idx, []).append({name: part.cpu() for name, part in parts.items()})

    def gathered(self, names: list[str]) -> dict[str, SetOutputs]:
        """All sets by name, the same in every process.

        Raises:
            ValueError: when there are more sets than names.
        """
        if len(self._batches) > len(names):
            raise ValueError(
                f"test_dataloader must give one loader, got {len(self._batches)}; test_sets names several."
            )
        return {names[index]: self._set(batches) for index, batches in self._batches.items()}

    def _set(self, batches: list[dict[str, Tensor]]) -> SetOutputs:
        tensors = {name: gathered(torch.cat([part[name] for part in batches]), self.device) for name in batches[0]}
        summary: Predictive = {}
        others: dict[str, Predictive] = {}
        for name, values in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "summary":
                summary[rest] = values
            elif kind == "others":
                way, _, key = rest.partition("/")
                others.setdefault(way, {})[key] = values
        outputs = tensors["outputs"].transpose(0, 1) if "outputs" in tensors else None
        return SetOutputs(summary, tensors["labels"], outputs, others)


def calibrations(
    likelihood: Likelihood,
    samplers: Mapping[str, Sampler],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    context: Any,
) -> dict[str, Any]:
    """The calibration of each way of drawing samples, from the calibration half of the hold-out.

    Args:
        likelihood: of the labels.
        samplers: by way of drawing.
        batches: of images and labels.
        device: of the network.
        context: gives the context of a forward pass, such as that of mixed precision.
    """
    predictives: dict[str, list[Predictive]] = {way: [] for way in samplers}
    labels = []
    for batch_idx, (x, of_batch) in enumerate(batches):
        x = x.to(device)
        for way, sampler in samplers.items():
            with context():
                predictive = likelihood.predictive(sampler(x, batch_idx))
            predictives[way].append({name: values.cpu() for name, values in predictive.items()})
        labels.append(of_batch.cpu())
    if not labels:
        return {}
    target = gathered(torch.cat(labels), device)
    fitted = {}
    for way, parts in predictives.items():
        joined = {name: gathered(torch.cat([part[name] for part in parts]), device) for name in parts[0]}
        fitted[way] = likelihood.calibrate(joined, target)
    return {way: calibration for way, calibration in fitted.items() if calibration is not None}


def gathered(rows: Tensor, device: torch.device) -> Tensor:
    """The rows of all processes in the order of the data set, of which each process has every n-th."""
    if not torch.distributed.is_initialized():
        return rows
    parts = [part.cpu() for part in gather_all_tensors(rows.to(device))]
    places = [torch.arange(len(part)) * len(parts) + rank for rank, part in enumerate(parts)]
    return torch.cat(parts)[torch.cat(places).argsort()]
