"""Predictor: a checkpoint as a function of images or rows, for programs that have no Trainer."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from bnn_lightning.checkpoints.ensembles import joined_checkpoint, misfit
from bnn_lightning.checkpoints.own_modules import importable
from bnn_lightning.checkpoints.parts import Trained
from bnn_lightning.checkpoints.record import CheckpointError, Record
from bnn_lightning.deployment.exported import Exported, is_export, read_export
from bnn_lightning.evaluation.draws import Draws
from bnn_lightning.evaluation.sampler import Sampler
from bnn_lightning.likelihoods.base import Likelihood
from bnn_lightning.likelihoods.predictions import Predictions
from bnn_lightning.preprocessing.arrays import Layout
from bnn_lightning.preprocessing.images import Batch, ImagePreparation, NoPreparation
from bnn_lightning.preprocessing.tables import RowPreparation

BATCH_SIZE = 500
"""That of ``bnn predict``, so that local draws, whose noise is that of a batch, are the same."""

KEPT_BYTES = 2**30

_DTYPES = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}
_MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}

Preparation = ImagePreparation | RowPreparation | NoPreparation


class OutputSampler(Protocol):
    """Samples of a network's outputs, such as :class:`bnn_lightning.Sampler` gives."""

    draws: Draws

    @property
    def samples(self) -> int:
        """How many there are."""

    def __call__(self, x: Tensor, batch_idx: int = 0) -> Tensor:
        """The outputs of all samples, ``(samples, batch, outputs)``."""


class Predictor:
    """Predicts for images or rows as a program has them, with what a checkpoint says of them.

    ``predictor(images)`` prepares them as those of training were (channels, size, normalisation; columns), draws
    samples of the network's outputs, and gives a :class:`bnn_lightning.ClassPredictions`, or for numbers a
    :class:`bnn_lightning.NumberPredictions`: one entry for each example, also where there is one alone. What it says is
    what ``bnn predict`` writes, by the same code.

    Weight draws are made once, when it is made: sample t is one function of the example. So an example's prediction is
    the same, bit for bit, in every call with the same batch; in another batch, or alone, kernels may add numbers in
    another order, and it differs by rounding alone. Mean weights likewise. Under local draws noise is that of a batch:
    the same call gives the same numbers, and those of an example depend on what else is in its batch.

    Threads may call it at the same time, and get the same numbers as one after another. With weight draws that are kept
    they compute at the same time; otherwise they wait for each other. The state of torch's generators is as before
    after every call; with weight draws that are kept a call never sets it.

    It can be pickled for other processes of the same installation, and copied, with its weight draws.

    Args:
        sampler: of the outputs; or a graph that was exported, which gives what the likelihood says of them.
        likelihood: of the labels, in their units.
        preparation: of the examples.
        class_names: as far as they are known.
        calibration: of samples that are drawn in this way, or None.
        target_risk: the highest error rate of accepted predictions.
        alpha: the rate at which prediction sets, or intervals, miss the truth.
        target_error: where labels are numbers, the largest error that is no mistake, in their units; None decides
            nothing.
        device: of the network.
        precision: that of the checkpoint's Trainer, such as bf16-mixed.
        batch_size: examples that go through the network at once.

    Raises:
        ValueError: when an argument is out of range.
    """

    def __init__(
        self,
        sampler: OutputSampler | Exported,
        likelihood: Likelihood,
        preparation: Preparation,
        class_names: Sequence[str] = (),
        calibration: Any = None,
        target_risk: float = 0.01,
        alpha: float = 0.05,
        target_error: float | None = None,
        device: torch.device | str = "cpu",
        precision: str = "32-true",
        batch_size: int = BATCH_SIZE,
    ):
        for name, rate in (("target_risk", target_risk), ("alpha", alpha)):
            if not 0 < rate < 1:
                raise ValueError(f"{name} must be a rate between 0 and 1, such as 0.05, got {rate}.")
        if target_error is not None and (likelihood.label_kind == "classes" or not target_error > 0):
            raise ValueError(
                f"target_error must be above 0, in the units of labels that are numbers, got {target_error} for "
                f"{type(likelihood).__name__}."
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")
        self.likelihood, self.preparation, self.class_names = likelihood, preparation, tuple(class_names)
        self.draws, self.device, self.batch_size = sampler.draws, torch.device(device), batch_size
        self.samples, self.calibration = sampler.samples, calibration
        self.rule = likelihood.decision_rule(calibration, target_risk, alpha, target_error)
        """What is accepted, and what sets and intervals promise, in a few sentences."""
        self._thresholds = likelihood.thresholds(calibration, target_risk, alpha, target_error)
        self._precision = precision
        self._sampler, self._replicas, self._lock = sampler, threading.local(), threading.Lock()
        # One pass draws the weights, and finds out whether the network takes all draws at once: then nothing is written
        # in a call that another thread could read.
        self._runs_at_once = False
        if preparation.shape is not None:
            self._summary(Batch(torch.zeros(1, *preparation.shape), None), 0)
            self._runs_at_once = isinstance(sampler, Sampler) and sampler.draws == "weights" and sampler.keeps_draws
            self._runs_at_once |= isinstance(sampler, Exported)

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path] | Record,
        samples: int | None = None,
        draws: Draws | None = None,
        device: torch.device | str = "cpu",
        target_risk: float = 0.01,
        alpha: float = 0.05,
        target_error: float | None = None,
        code: str | Path | None = None,
        batch_size: int = BATCH_SIZE,
        kept_bytes: int = KEPT_BYTES,
    ) -> Self:
        """The predictor of a checkpoint of ``bnn fit`` or ``bnn ensemble``; nothing in the file can run.

        Args:
            path: the file, or the bare name of one that comes with the package, such as lenet_ivon_mnist; or an .onnx
                or .pt2 file of ``bnn export --what``, whose samples are those in the file, on the CPU; or a folder of a
                run, of which best.ckpt is taken, else last.ckpt; or several files, whose networks are joined as
                ``bnn ensemble`` does, without its calibration; or the record of one that was read already.
            samples: that are drawn; None is what the checkpoint says.
            draws: how they are drawn; likewise.
            device: that computes.
            target_risk, alpha, target_error: see the class.
            code: a folder of your own modules, for networks of yours: as ``--code``, it is looked in before all that is
                installed, and the current folder after that. A checkpoint never says where code is.
            batch_size: examples that go through the network at once.
            kept_bytes: of weight draws that are kept; if all of them take more, they are drawn in every call.

        Raises:
            CheckpointError: when there is no such file, or it cannot be used.
            ValueError: when an argument is out of range, or ``code`` no folder.
        """
        if isinstance(path, str | Path) and is_export(Path(path)):
            _check_export(Path(path), device, {"samples": samples, "draws": draws, "code": code})
            exported = read_export(Path(path).expanduser())
            data, calibration = exported.data, exported.calibration
            prepared = _preparation_of(data), data.get("class_names", ()), calibration
            decided = target_risk, alpha, target_error
            return cls(exported, exported.likelihood, *prepared, *decided, batch_size=batch_size)
        record = path if isinstance(path, Record) else record_of(path)
        with importable(code), torch.random.fork_rng([]):  # a new network draws its first weights
            trained = Trained.of(record)
        precision = _precision_of(record)
        network = _moved(trained.network, device, _DTYPES.get(precision))
        sampling, data = trained.sampling, record.data or {}
        sampler = Sampler(
            network,
            sampling.test_samples if samples is None else samples,
            draws or sampling.draws,
            sampling.seed,
            sampling.chunk,
            kept_bytes,
        )
        return cls(
            sampler,
            trained.likelihood,
            _preparation_of(data),
            data.get("class_names", ()),
            trained.calibration.get(sampler.draws),
            target_risk,
            alpha,
            target_error,
            device,
            precision,
            batch_size,
        )

    def __call__(self, inputs: Any, layout: Layout | None = None) -> Predictions:
        """Predictions for some examples, one entry for each, in their order.

        Args:
            inputs: images, see :meth:`bnn_lightning.preprocessing.images.ImagePreparation.batches`; or rows of a table,
                see :meth:`bnn_lightning.preprocessing.tables.RowPreparation.batches`.
            layout: of the axes of arrays of images, such as NCHW; None finds it by their sizes, where these tell it.

        Raises:
            ValueError: when they are none that can be prepared; the message says what came, and the cure.
        """
        return self.of_prepared(self.preparation.batches(inputs, self.batch_size, layout))

    def of_prepared(self, batches: Iterable[Batch]) -> Predictions:
        """Predictions for batches of one or more examples that ``preparation`` has prepared, in their order."""
        summaries, files = [], []
        for number, batch in enumerate(batches):
            summaries.append(self._summary(batch, number))
            files += batch.files or []
        summary = {name: torch.cat([part[name] for part in summaries]) for name in summaries[0]}
        return self.likelihood.predictions(summary, self.class_names, self._thresholds, files or None)

    def __repr__(self) -> str:
        names = ", ".join(self.class_names[:4]) + (", ..." if len(self.class_names) > 4 else "")
        classes = f", {len(self.class_names)} classes ({names})" if self.class_names else ""
        return f"Predictor({type(self.likelihood).__name__}{classes}, {self.draws} draws on {self.device}). {self.rule}"

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied; locks and the replicas of threads belong to a process."""
        return {name: value for name, value in vars(self).items() if name not in ("_replicas", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _replicas=threading.local(), _lock=threading.Lock())

    def _summary(self, batch: Batch, number: int) -> Mapping[str, Tensor]:
        """What the likelihood says of the samples for a batch, on the CPU."""
        with self._autocast(), nullcontext() if self._runs_at_once else self._lock:
            if isinstance(self._sampler, Exported):
                summary: Mapping[str, Tensor] = self._sampler.summary(batch.x)
            else:
                summary = self.likelihood.summary(self._own_sampler()(batch.x.to(self.device), number))
        return {name: values.cpu() for name, values in summary.items()}

    def _own_sampler(self) -> OutputSampler:
        """The sampler, or this thread's replica of it."""
        assert not isinstance(self._sampler, Exported)
        if not self._runs_at_once or not isinstance(self._sampler, Sampler):
            return self._sampler
        if not hasattr(self._replicas, "sampler"):
            with self._lock:
                self._replicas.sampler = self._sampler.replica()
        return self._replicas.sampler

    def _autocast(self) -> AbstractContextManager:
        """The precision of the checkpoint; no CPU computes in half precision of 16 bits."""
        dtype = _MIXED.get(self._precision)
        if dtype is None or (dtype is torch.float16 and self.device.type == "cpu"):
            return nullcontext()
        return torch.autocast(self.device.type, dtype)


def _check_export(path: Path, device: torch.device | str, settings: Mapping[str, Any]) -> None:
    """Refuses settings that a graph has within it."""
    for name, value in settings.items():
        if value is not None:
            raise ValueError(f"{name} must be None for {path}, whose samples are in the file, got {value}.")
    if torch.device(device).type != "cpu":
        raise ValueError(f"device must be cpu for {path}, got {device}.")


def _moved(network: nn.Module, device: str | torch.device, dtype: torch.dtype | None) -> nn.Module:
    try:
        return network.to(device, dtype)
    except (RuntimeError, AssertionError) as error:  # torch says that it was built without that kind, or has none
        reason = " ".join(str(error).split(".")[0].split())
        raise ValueError(f"device must be one that this machine has, such as cpu, got {device} ({reason}).") from error


def record_of(path: str | Path | Sequence[str | Path]) -> Record:
    """The record of a checkpoint, of a run's folder, or of several checkpoints joined."""
    if isinstance(path, str | Path):
        return Record.read(Path(path).expanduser())
    records = [Record.read(Path(each).expanduser()) for each in path]
    if not records:
        raise ValueError("path must be a checkpoint, or several, got none.")
    for record in records:
        if record.config is None:
            raise CheckpointError(f"{record.path} was saved from Python and holds no config, so it cannot be joined.")
    if found := misfit(records, str(records[0].path)):
        raise CheckpointError(f"{found[0].path} {found[1]}.")
    return records[0] if len(records) == 1 else Record.from_contents(joined_checkpoint(records), records[0].path)


def _preparation_of(data: Mapping[str, Any]) -> Preparation:
    if "columns" in data:
        return RowPreparation.of(data)
    return ImagePreparation.of(data) if "image_size" in data else NoPreparation()


def _precision_of(record: Record) -> str:
    precision = str((record.config or {}).get("trainer", {}).get("precision") or "32-true")
    return {"64": "64-true", "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}.get(precision, precision)
