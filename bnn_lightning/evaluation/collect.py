"""Collects predictions on sets of images, batch by batch and from all processes, for test and calibration."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from bnn_lightning.core.moments import MomentsError
from bnn_lightning.evaluation.sampler import Sampler
from bnn_lightning.likelihoods.base import Likelihood, Predictive


@dataclass(frozen=True)
class SetOutputs:
    """Predictions on a set of images, on the CPU, in the order of the set.

    Args:
        summary: predictive and uncertainties, ``(images, ...)``, see :meth:`bnn_lightning.Likelihood.summary`.
        labels: of the images, ``(images, ...)``.
        outputs: of all samples, ``(samples, images, outputs)``; for the test images alone, whose errors from the draws
            are computed from them, and not under ``moments``, where nothing is drawn.
        alternatives: predictives made in other ways, see :meth:`bnn_lightning.Likelihood.predictive`: ``one_sample``,
            ``mean_weights``, ``kept_weights``.
    """

    summary: Predictive
    labels: Tensor
    outputs: Tensor | None = None
    alternatives: dict[str, Predictive] = field(default_factory=dict)


class Collector:
    """Collects the :class:`SetOutputs` of several sets, of which the first is the test set.

    Args:
        likelihood: of the labels.
        sampler: draws the samples that are tested.
        alternatives: samplers for other ways of predicting the test set, by name.
        device: of the network; processes exchange tensors there.
    """

    def __init__(
        self, likelihood: Likelihood, sampler: Sampler, alternatives: Mapping[str, Sampler], device: torch.device
    ) -> None:
        self.likelihood, self.sampler, self.alternatives, self.device = likelihood, sampler, alternatives, device
        self._batches: dict[int, list[dict[str, Tensor]]] = {}

    def add(self, x: Tensor, labels: Tensor, batch_idx: int, set_idx: int) -> None:
        """Predicts batch ``batch_idx`` of set ``set_idx``, and keeps the results.

        Args:
            x: images ``(batch, channels, height, width)``.
            labels: ``(batch, ...)``.
            batch_idx: of the batch in its set; it seeds local draws.
            set_idx: of the set; 0 is the test set.
        """
        outputs = self.sampler(x, batch_idx)
        results = {f"summary/{key}": values for key, values in self.likelihood.summary(outputs).items()}
        results["labels"] = labels
        if set_idx == 0:
            self.likelihood.check_labels(labels, outputs.shape[-1])
            is_drawn = self.sampler.draws != "moments"  # their samples are the same whenever they are made
            if is_drawn:
                results["outputs"] = outputs.transpose(0, 1)
            alternative_outputs = {"one_sample": outputs[:1]} if is_drawn and len(outputs) > 1 else {}
            alternative_outputs |= {name: sampler(x) for name, sampler in self.alternatives.items()}
            for name, samples in alternative_outputs.items():
                predictive = self.likelihood.predictive(samples)
                results |= {f"alternatives/{name}/{key}": values for key, values in predictive.items()}
        self._batches.setdefault(set_idx, []).append({path: values.cpu() for path, values in results.items()})

    def gather(self, names: list[str]) -> dict[str, SetOutputs]:
        """The predictions on all sets by name, gathered from all processes; every process gets the same result.

        Args:
            names: of the sets, in their order.

        Raises:
            ValueError: when there are more sets than names.
        """
        if len(self._batches) > len(names):
            raise ValueError(
                f"test_dataloader must give one loader, got {len(self._batches)}; test_sets names several."
            )
        return {names[index]: self._set_outputs(batches) for index, batches in self._batches.items()}

    def _set_outputs(self, batches: list[dict[str, Tensor]]) -> SetOutputs:
        results = {path: gather_rows(torch.cat([batch[path] for batch in batches]), self.device) for path in batches[0]}
        summary: Predictive = {}
        alternatives: dict[str, Predictive] = {}
        for path, values in results.items():
            kind, _, rest = path.partition("/")
            if kind == "summary":
                summary[rest] = values
            elif kind == "alternatives":
                name, _, key = rest.partition("/")
                alternatives.setdefault(name, {})[key] = values
        outputs = results["outputs"].transpose(0, 1) if "outputs" in results else None
        return SetOutputs(summary, results["labels"], outputs, alternatives)


def calibrations(
    likelihood: Likelihood,
    samplers: Mapping[str, Sampler],
    batches: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    context: Any,
) -> dict[str, Any]:
    """The calibration of predictions for each way of drawing samples, fitted on the given images.

    Args:
        likelihood: of the labels.
        samplers: by the name of their draws (``weights``, ``local``, ``mean``, ``moments``).
        batches: images and labels of the calibration half of the hold-out, on the network's device.
        device: that one.
        context: returns the context manager of a forward pass, such as that of mixed precision.

    Returns:
        by the names of ``samplers`` the results of :meth:`bnn_lightning.Likelihood.calibrate`; without those that
        cannot propagate moments, and empty without images.
    """
    predictives: dict[str, list[Predictive]] = {draws: [] for draws in samplers}
    labels = []
    for batch_idx, (x, batch_labels) in enumerate(batches):
        for draws in list(predictives):
            try:
                with context():
                    predictive = likelihood.predictive(samplers[draws](x, batch_idx))
            except MomentsError:  # of the sizes of these images; test says so where moments are asked for
                del predictives[draws]
                continue
            predictives[draws].append({key: values.cpu() for key, values in predictive.items()})
        labels.append(batch_labels.cpu())
    if not labels:
        return {}
    all_labels = gather_rows(torch.cat(labels), device)
    fitted = {}
    for draws, of_batches in predictives.items():
        keys = of_batches[0]
        predictive = {key: gather_rows(torch.cat([batch[key] for batch in of_batches]), device) for key in keys}
        fitted[draws] = likelihood.calibrate(predictive, all_labels)
    return {draws: calibration for draws, calibration in fitted.items() if calibration is not None}


def gather_rows(rows: Tensor, device: torch.device) -> Tensor:
    """The rows ``(images, ...)`` of all processes, in the order of the data set, on the CPU.

    Each of n processes has every n-th row of the data set, as distributed samplers divide it.
    """
    if not torch.distributed.is_initialized():
        return rows
    shares = [share.cpu() for share in gather_all_tensors(rows.to(device))]
    positions = [torch.arange(len(share)) * len(shares) + rank for rank, share in enumerate(shares)]
    return torch.cat(shares)[torch.cat(positions).argsort()]
