"""PictureStream: pictures that are read when they are served, so that a folder may be larger than the memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bnn_lightning.data.loader import EpochLoader, EpochSampler
from bnn_lightning.preprocessing.decoding import Decoder, Reading, read_each
from bnn_lightning.preprocessing.pictures import Picture
from bnn_lightning.preprocessing.scaling import Scaling


@dataclass(frozen=True)
class PictureStream:
    """Pictures in a fixed order; those that cannot be read are passed over, and noted.

    Args:
        pictures: the files.
        labels: of each, ``(pictures, ...)``.
        decoder: that reads them.
        note: called with the pictures, what has been read of them so far, after each batch, and whether that was all.
        reading: what has become of the files that were served.
    """

    pictures: Sequence[Picture]
    labels: Tensor
    decoder: Decoder
    note: Callable[[Sequence[Picture], Reading, bool], None]
    reading: Reading = field(default_factory=Reading)

    def __len__(self) -> int:
        return len(self.pictures)

    def served(self, start: int, stop: int | None) -> list[Picture]:
        """The pictures that were served, from number ``start`` on and before ``stop``."""
        return [self.pictures[index] for index in self.reading.kept[start:stop]]


class StreamLoader(EpochLoader):
    """Serves pictures in their order: normalised float32 ``(batch, channels, size, size)``, and labels.

    Every batch but the last is full; ``len()`` counts batches as if all pictures could be read. Pictures are read by
    one process.

    Args:
        stream: the pictures.
        batch_size: pictures in a batch.
        scaling: that normalises them, on their device.
        sampler: gives their order, which must be that of the files.
        device: the device of the batches.
    """

    def __init__(
        self,
        stream: PictureStream,
        batch_size: int,
        scaling: Scaling,
        sampler: EpochSampler,
        device: torch.device | str = "cpu",
    ):
        super().__init__(len(stream), batch_size, sampler, device)
        self.stream, self.scaling = stream, scaling

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stream, reading = self.stream, self.stream.reading
        vars(reading).update(vars(Reading()))
        rows: list[np.ndarray] = []
        files = (picture.path for picture in stream.pictures)
        for pixels in read_each(files, stream.decoder, reading):
            rows.append(pixels)
            if len(rows) == self.batch_size:
                stream.note(stream.pictures, reading, False)
                yield self._served_rows(rows)
                rows = []
        stream.note(stream.pictures, reading, True)
        if rows:
            yield self._served_rows(rows)

    def batch(self, index: Tensor, step: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("a stream is served in its order alone")

    def _served_rows(self, rows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
        kept = self.stream.reading.kept[-len(rows) :]
        pixels = torch.from_numpy(np.stack(rows)).to(self.device, non_blocking=True)
        return self.scaling(pixels), self.stream.labels[kept].to(self.device)
