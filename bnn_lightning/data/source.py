"""DataSource, the base class of all data: hold-out, units of targets, loaders, what a checkpoint keeps of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from bnn_lightning.data.fingerprints import fingerprints, joined, shared
from bnn_lightning.data.loader import EpochLoader, EpochSampler
from bnn_lightning.data.splits import stratified_split
from bnn_lightning.wording import listed

_LEAST_VARIATION = 1e-5  # of a target's mean, of which single precision is off by 6e-8: a hundredth of such a std
_PART = 1024  # examples that are read at once for their fingerprints

Examples = TypeVar("Examples", bound=Any)


class DataNotFoundError(FileNotFoundError):
    """A data set was not found; the message says what is missing, where it was looked for, and what works instead."""


class DataSource(LightningDataModule, ABC):
    """Examples in memory, with a hold-out taken from those of training: seeded, never from the test set.

    The hold-out is halved. Validation runs on the selection half (best checkpoint, plateau schedule). The calibration
    half is used neither for training nor for model selection, so that temperatures and thresholds can be fitted on it.
    A label is a class, one of ``class_names``, or a row of numbers, one for each of ``target_names``.

    Args:
        batch_size: examples in a training batch.
        eval_batch_size: examples in a batch of validation, test and prediction.
        val_split: share of the training examples that is held out, 0 for none.
        seed: of the hold-out and of the order of training batches.

    Raises:
        ValueError: when an argument is out of range; the message names it.
    """

    class_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    name_identifies_examples: bool = True
    """Whether the class name alone says which examples these are; false for files of a user's own."""
    splits_test_by_seed: bool = False
    """Whether ``seed`` decides which are test examples, because the source has no test set of its own."""
    training_examples_of: str | None = None
    """The data set whose training set contains these images; a checkpoint trained on it must not be tested on them."""
    found: object = None
    """What a source that has to look for its examples has found; a verb prints it before its work."""

    def __init__(self, batch_size: int, eval_batch_size: int, val_split: float, seed: int):
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        if not 0 <= val_split < 1:
            raise ValueError(f"val_split must be from 0 to below 1, such as 0.2, got {val_split}.")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}.")
        self.name = type(self).__name__
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_split, self.seed = val_split, seed
        self.ood: list[Any] = []
        """Other sources, which test tells from the test examples by their uncertainty."""
        self.notes: list[str] = []
        """Remarks that every result is reported with, such as "unofficial pixels"."""
        self.unreadable: dict[Path, str] = {}
        """Files that could not be read and were left out, each with the reason."""
        self.target_mean: list[float] = []
        self.target_std: list[float] = []
        """``target_mean`` and ``target_std`` of each target over the training examples; empty before setup."""
        self.train: Any = None
        self.selection: Any = None
        self.calibration: Any = None
        self.test: Any = None
        self.test_sets: dict[str, Any] = {}
        """The sets that test runs on: the test examples by this source's name, then ``ood/NAME``, ``KIND/SEVERITY``."""
        self.predict: Any = None
        self.predicts_test_examples = False
        """Whether ``predict`` runs on the test examples instead of those that the source has for it."""
        self.streams_predict = False
        """Whether a source that can may read the examples of ``predict`` when they are served, and not before."""

    @abstractmethod
    def _loader(self, examples: Any, train: bool = False) -> EpochLoader:
        """Serves examples by the batch."""

    @abstractmethod
    def _inputs(self, examples: Any) -> Tensor:
        """``(examples, ...)``: what tells one example from another, as uint8 or float32."""

    def _add_ood(self, title: str, examples: Any) -> None:
        """Adds a test set of other examples, which has a number where there is one of the same title."""
        name, number = f"ood/{title}", 2
        while name in self.test_sets:
            name, number = f"ood/{title}-{number}", number + 1
        self.test_sets[name] = examples

    def split_settings(self, of_holdout: bool) -> tuple[str, ...]:
        """Names of the settings that decide which examples are held out, or else which are test examples."""
        if of_holdout:
            return ("seed", "val_split")
        return ("seed",) if self.splits_test_by_seed else ()

    def predict_names(self, start: int = 0, stop: int | None = None) -> list[str]:
        """A readable name for each example of ``predict``, such as its file, from number ``start`` to before ``stop``.

        Call ``setup("predict")`` first. Of examples that are read when they are served, those that have been.
        """
        return [f"test/{index}" for index in range(len(after_setup(self.predict, "predict")))[start:stop]]

    def knows_labels_of(self, class_names: Sequence[str]) -> bool:
        """Whether labels of ``predict`` are known, and of these classes; or numbers, where labels are numbers."""
        labels = after_setup(self.predict, "predict").labels
        if labels.is_floating_point():
            return not bool(labels.isnan().all())
        return list(self.class_names) == list(class_names) and bool((labels >= 0).any())

    @property
    def title(self) -> str:
        """What results call these examples: the name of the data set, or of a user's own folder."""
        return str(self.name)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_targets(self) -> int:
        """Number of target columns; 0 where labels are classes."""
        return len(self.target_names)

    @property
    def label_kind(self) -> Literal["classes", "numbers"]:
        """What a label is."""
        return "numbers" if self.target_names else "classes"

    @property
    def num_train(self) -> int:
        """N, the number of distinct training examples after subset and hold-out; call ``setup("fit")`` first."""
        return len(after_setup(self.train, "fit"))

    @property
    def loss_weights(self) -> list[float] | None:
        """The weight of each class in the training loss; None where all weigh the same. Call ``setup("fit")`` first."""
        return None

    @property
    def departures(self) -> list[str]:
        """What makes the training loss another one than that of the training examples as they are."""
        return []

    @cached_property
    def divided_examples(self) -> str | None:
        """A digest of the examples that the seed divides into parts: where they change, all parts do. A longer one says
        more, and begins with that of earlier releases. None where they cannot change, as in a published data set.
        """
        return None

    @cached_property
    def _trained_on(self) -> str:
        return joined(self._fingerprints(self.train))

    @cached_property
    def _on_hold_out(self) -> list[str]:
        """Notes on halves of the hold-out that have training examples, as copies in a folder or a table do."""
        halves = {"selection": self.selection, "calibration": self.calibration}
        counts = {half: self.count_trained_on(examples, self._trained_on) for half, examples in halves.items()}
        return [
            f"{count:,} of {len(halves[half]):,} {half} examples are training examples"
            for half, count in counts.items()
            if count
        ]

    def count_trained_on(self, examples: Any, known: str) -> int:
        """How many examples a checkpoint was trained on.

        Args:
            examples: of this source, such as ``test``.
            known: what the checkpoint's description has under ``trained_on``.
        """
        return shared(self._fingerprints(examples), known)

    def _fingerprints(self, examples: Any) -> list[str]:
        # By parts, because pixels may be mapped from a file that is larger than memory.
        parts = (examples[start : start + _PART] for start in range(0, len(examples), _PART))
        return [each for part in parts for each in fingerprints(self._inputs(part))]

    def divided(self, examples: Examples, holdout: Examples | None = None) -> tuple[Examples, Examples, Examples]:
        """Training examples, and the selection and the calibration half of the hold-out.

        Args:
            examples: all of training.
            holdout: the source's own; None splits ``val_split`` off the examples.

        Raises:
            ValueError: when nothing is left to train on.
        """
        if holdout is None:
            held_out, train = stratified_split(examples.labels, self.val_split, self.seed)
            if len(train) == 0:
                raise ValueError(f"val_split={self.val_split} leaves none of {len(examples)} examples to train on.")
            examples, holdout = examples[train], examples[held_out]
        calibration, selection = stratified_split(holdout.labels, 0.5, self.seed + 1)
        return examples, holdout[selection], holdout[calibration]

    def measure_targets(self, labels: Tensor) -> None:
        """Sets mean and standard deviation of the targets, from those of training, ``(examples, targets)``.

        Raises:
            ValueError: when a target is the same everywhere, or nearly so beside its mean.
        """
        values = labels.double()
        self.target_mean, self.target_std = values.mean(0).tolist(), values.std(0, correction=0).tolist()
        for name, std, mean in zip(self.target_names, self.target_std, self.target_mean, strict=True):
            if not std > _LEAST_VARIATION * abs(mean):
                raise ValueError(
                    f"target must vary by more than {_LEAST_VARIATION:g} of its mean, which single precision resolves, "
                    f"got {name}, of mean {mean:.8g} and standard deviation {std:.2g} in training; if it does vary, "
                    "subtract a constant from it."
                )

    def describe(self) -> dict[str, Any]:
        """What a checkpoint stores about the data, in plain values: enough to prepare other examples the same way."""
        description: dict[str, Any] = {
            "name": self.name,
            "class_names": list(self.class_names),
            "notes": list(self.notes),
        }
        if self.divided_examples is not None:
            description["divided_examples"] = self.divided_examples
            if self.train is not None:
                description["trained_on"] = self._trained_on
                description["notes"] += self._on_hold_out
        if self.target_names:
            description["target_names"] = list(self.target_names)
            description |= {"target_mean": self.target_mean, "target_std": self.target_std}
        return description

    def number_classes_like(self, class_names: Sequence[str]) -> None:
        """Keeps the order of a checkpoint's classes where training goes on; most sources have but one order."""

    def prepare_like(self, description: dict[str, Any], labelled: bool = True) -> None:
        """Takes over from ``description``, which :meth:`describe` returned, how examples are prepared.

        Raises:
            ValueError: when ``labelled`` and the labels mean something else.
        """
        targets = description.get("target_names", [])
        for kind, ours, theirs in (
            ("classes", list(self.class_names), description["class_names"]),
            ("targets", list(self.target_names), targets),
        ):
            if labelled and ours != theirs and (ours or not self.target_names):
                its = f"the {kind} {listed(theirs)}" if theirs else f"no {kind}"
                raise ValueError(
                    f"data must have {its}, as the checkpoint's {description['name']}, got {listed(ours) or 'none'} in "
                    f"{self.title}, whose labels would mean nothing. `bnn predict` needs no labels."
                )
        self.target_mean = description.get("target_mean", [])
        self.target_std = description.get("target_std", [])

    def train_dataloader(self) -> EpochLoader:
        return self._loader(after_setup(self.train, "fit"), train=True)

    def val_dataloader(self) -> EpochLoader | list:
        selection = after_setup(self.selection, "fit")
        return self._loader(selection) if len(selection) else []

    def calibration_dataloader(self) -> EpochLoader:
        """Serves the calibration half of the hold-out (unused for training and model selection)."""
        return self._loader(after_setup(self.calibration, "fit"))

    def test_dataloader(self) -> EpochLoader | list[EpochLoader]:
        """The loader of the test examples; where there are several ``test_sets``, a list with the loader of each."""
        after_setup(self.test, "test")
        loaders = [self._loader(examples) for examples in self.test_sets.values()]
        return loaders if len(loaders) > 1 else loaders[0]

    def predict_dataloader(self) -> EpochLoader:
        return self._loader(after_setup(self.predict, "predict"))

    def _sampler_and_device(
        self, length: int, train: bool, balanced_labels: Tensor | None = None
    ) -> tuple[EpochSampler, torch.device]:
        """The order in which a loader of this process serves examples, and where."""
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        device = trainer.strategy.root_device if trainer else torch.device("cpu")
        return EpochSampler(length, train, self.seed, rank, world_size, balanced_labels), device


def after_setup(examples: Examples | None, stage: str) -> Examples:
    """The examples.

    Raises:
        RuntimeError: when they are not there, because ``setup`` has not run.
    """
    if examples is None:
        raise RuntimeError(f"setup({stage!r}) must run before this.")
    return examples
