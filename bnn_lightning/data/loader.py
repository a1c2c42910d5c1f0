"""Images in memory, and the loader that serves them as batches without any Python code per image."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from bnn_lightning.data.augmentation import Augmentation
from bnn_lightning.preprocessing.scaling import Scaling
from bnn_lightning.randomness import combined_seed


@dataclass(frozen=True)
class Images:
    """Images with their labels; ``images[index]`` selects some of them.

    Args:
        stored: pixels ``(n, channels, height, width)`` as uint8.
        labels: classes ``(images,)`` as int64, -1 where one is not known; or numbers ``(images, targets)`` as float32,
            nan where one is not known.
        rows: ``(images,)``, indices into ``stored``, for pixels that are mapped from a file: only the pixels that are
            used are read, and indexing selects rows instead of copying pixels. None where all of ``stored`` is meant.

    Raises:
        ValueError: when the pixels have another type or shape, or the labels another length.
    """

    stored: Tensor
    labels: Tensor
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        if self.stored.dtype != torch.uint8 or self.stored.dim() != 4:
            raise ValueError(
                "pixels must be uint8 of shape (n, channels, height, width), "
                f"got {self.stored.dtype} of shape {tuple(self.stored.shape)}."
            )
        if len(self.labels) != len(self) or self.labels.dim() != (2 if self.labels.is_floating_point() else 1):
            raise ValueError(f"labels must be one for each image ({len(self)}), got {tuple(self.labels.shape)}.")

    def __len__(self) -> int:
        return len(self.stored if self.rows is None else self.rows)

    def __getitem__(self, index: Tensor | slice) -> "Images":
        if self.rows is None:
            return Images(self.stored[index], self.labels[index])
        return Images(self.stored, self.labels[index], self.rows[index])

    @property
    def pixels(self) -> Tensor:
        """``(images, channels, height, width)`` as uint8; copied where ``rows`` is given."""
        return self.stored if self.rows is None else self.stored[self.rows]

    def converted(self, channels: int, size: int) -> "Images":
        """The same images with 1 or 3 ``channels`` and ``size`` x ``size`` pixels (bilinear, antialiased).

        Raises:
            ValueError: for any other number of channels.
        """
        if tuple(self.stored.shape[1:]) == (channels, size, size):
            return self
        pixels = self.pixels
        if channels == 1 and pixels.shape[1] == 3:
            pixels = tvf.rgb_to_grayscale(pixels)
        elif channels == 3 and pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        elif channels != pixels.shape[1]:
            raise ValueError(f"channels must be 1 or 3, got {channels} for images with {pixels.shape[1]}.")
        if tuple(pixels.shape[2:]) != (size, size):
            # In chunks, because resizing goes through float32.
            pixels = torch.cat([tvf.resize(chunk, [size, size], antialias=True) for chunk in pixels.split(4096)])
        return Images(pixels.contiguous(), self.labels)

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over all pixels, on a scale where 255 is 1."""
        # A histogram per channel gives exact float64 results and needs no float copy of the images.
        levels = torch.arange(256, dtype=torch.float64) / 255
        counts = torch.zeros(self.stored.shape[1], 256, dtype=torch.int64)
        for index in torch.arange(len(self)).split(4096):
            for count, channel in zip(counts, self[index].pixels.unbind(1), strict=True):
                count += torch.bincount(channel.flatten(), minlength=256)
        means, stds = [], []
        for count in counts:
            share = count.double() / count.sum()
            mean = (share * levels).sum()
            means.append(mean.item())
            stds.append((share * (levels - mean).square()).sum().sqrt().item())
        return means, stds


class EpochSampler:
    """The order of the examples in an epoch, which depends on seed and epoch only, and this process's share of it.

    Lightning calls ``set_epoch``. With several processes, each takes every ``world_size``-th example. In training the
    shares are cut to equal length, so that in every step all processes have the same number of examples.

    Args:
        length: number of examples, also of those that an epoch has.
        shuffle: whether the order is random, as in training.
        seed: of the random order.
        rank: number of this process.
        world_size: number of processes.
        balanced_labels: labels ``(length,)`` of the examples; an epoch then draws examples with replacement, each class
            with the same probability. None has each example in an epoch once.
    """

    def __init__(
        self,
        length: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        balanced_labels: Tensor | None = None,
    ):
        self.length, self.shuffle, self.seed = length, shuffle, seed
        self.balanced_labels = balanced_labels
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> Tensor:
        """Indices of this process's examples, int64, in the order of the current epoch."""
        if not self.shuffle:
            return torch.arange(self.rank, self.length, self.world_size)
        generator = torch.Generator().manual_seed(combined_seed(self.seed, self.epoch))
        if self.balanced_labels is None:
            order = torch.randperm(self.length, generator=generator)
        else:
            order = _balanced_draws(self.balanced_labels.cpu(), generator)
        return order[self.rank :: self.world_size][: self.length // self.world_size]

    def augmentation_seed(self, step: int) -> int:
        """The seed for the augmentation of one step; each has its own, so that an epoch can be resumed."""
        return combined_seed(self.seed + 1, self.epoch, step, self.rank)

    def __len__(self) -> int:
        if self.shuffle:
            return self.length // self.world_size
        return len(range(self.rank, self.length, self.world_size))


def _balanced_draws(labels: Tensor, generator: torch.Generator) -> Tensor:
    """As many draws from ``range(len(labels))``, with replacement: a class that has any examples, then one of them."""
    by_class = labels.argsort(stable=True)
    _, counts = labels.unique(return_counts=True)
    first = counts.cumsum(0) - counts
    drawn = torch.randint(len(counts), (len(labels),), generator=generator)
    within = torch.rand(len(labels), generator=generator, dtype=torch.float64) * counts[drawn]
    return by_class[first[drawn] + within.long()]


class EpochLoader(ABC):
    """Iterates over ``(inputs, labels)`` in the order of a sampler, without any Python code per example.

    ``state_dict()`` holds the position within the epoch; after ``load_state_dict()`` the next pass begins there.

    Args:
        length: number of examples that it has.
        batch_size: examples in a batch; the last batch may be smaller. A last training batch of one example is left
            out, because batch norm cannot be computed from it.
        sampler: gives the order of the examples.
        device: the device of the batches.
    """

    def __init__(self, length: int, batch_size: int, sampler: EpochSampler, device: torch.device | str):
        self.length, self.batch_size, self.sampler = length, batch_size, sampler
        self.batch_sampler = None  # Lightning reads this attribute of every loader that has a sampler
        self.device = torch.device(device)
        self._served = 0  # batches of the current pass
        self._first = 0  # the batch that the next pass begins with

    index_device: torch.device | str = "cpu"
    """Where the indices of examples are wanted."""

    @abstractmethod
    def batch(self, index: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and labels of the examples ``index``, which are batch number ``step`` of their epoch."""

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (rest > (1 if self.sampler.shuffle and full else 0))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.sampler.order().to(self.index_device)
        first, self._first = self._first, 0
        for step in range(first, len(self)):
            inputs, labels = self.batch(order[step * self.batch_size : (step + 1) * self.batch_size], step)
            self._served = step + 1
            yield inputs, labels
        # For loops without Lightning: the next pass over this loader is the next epoch.
        self.sampler.set_epoch(self.sampler.epoch + 1)

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._served} | self._division()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next pass begin where the pass that saved ``state`` had come to.

        Raises:
            ValueError: when that epoch was divided into batches differently, so that its position has no counterpart.
        """
        for name, value in self._division().items():
            if state[name] != value:
                raise ValueError(
                    f"{name} must be {state[name]} to go on within an epoch, got {value}; between epochs it can change."
                )
        self._first = state["batches"]

    def _division(self) -> dict[str, int]:
        """The numbers that decide how an epoch is divided into batches."""
        return {"batch_size": self.batch_size, "processes": self.sampler.world_size, "images": self.sampler.length}


class BatchLoader(EpochLoader):
    """Serves images: normalised float32 ``(batch, channels, height, width)``, and labels ``(batch, ...)``.

    Args:
        images: to serve.
        batch_size: images in a batch; the last batch may be smaller. A last training batch of one image is left out,
            because batch norm cannot be computed from it.
        mean, std: of each channel, on a scale where 255 is 1.
        sampler: gives the order of the images.
        augmentation: what is done to each batch, in training.
        device: the device of the batches: they are copied to it as uint8 and normalised there.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        mean: list[float],
        std: list[float],
        sampler: EpochSampler,
        augmentation: Augmentation = Augmentation(),  # noqa: B008
        device: torch.device | str = "cpu",
    ):
        super().__init__(len(images), batch_size, sampler, device)
        self.images, self.augmentation, self.index_device = images, augmentation, images.labels.device
        self.scaling = Scaling(mean, std, self.device)

    def batch(self, index: Tensor, step: int) -> tuple[Tensor, Tensor]:
        batch = self.images[index]
        pixels, labels = batch.pixels, batch.labels
        if self.augmentation:
            pixels = self.augmentation(pixels, self.sampler.augmentation_seed(step))
        pixels, labels = pixels.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        return self.scaling(pixels), labels
