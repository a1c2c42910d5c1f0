"""Exports the smaller network of the kept weights, and compares it with the network that it comes from."""

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.compression.pruning import logits_and_labels
from bnn_lightning.compression.shrink import shrink
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.deployment.pt2 import Pt2

_ROUNDS = 30  # of forward passes whose time is taken


def export_dense(
    net: nn.Module,
    keep: Mapping[str, Tensor],
    loader: Any,
    path: Path,
    record: Mapping[str, Any],
    file_format: ExportFormat = Pt2(),  # noqa: B008
) -> tuple[list[dict[str, Any]], float]:
    """Writes the smaller network of the kept weights to a file, and measures three networks.

    These are ``mean weights``, the network at its mean weights; ``kept weights``, the same with the removed weights
    set to 0; and ``dense``, the smaller network, whose outputs are those of ``kept weights``. It has all channels that
    :func:`bnn_lightning.compression.shrink.stays` tells of.

    Args:
        net: a classifier with random layers.
        keep: masks over its weights, as :func:`bnn_lightning.compression.sparsity.masks` returns them.
        loader: batches of test images and class labels; latency is measured on the first batch.
        path: the file to write.
        record: plain values to store in the file.
        file_format: of the file.

    Returns:
        a row for each network with ``network`` (its name), ``parameters`` (their number), ``accuracy``, ``bytes`` (of
        its file), ``batch`` (images of the first batch), ``ms_1`` and ``ms_batch`` (milliseconds for one image and for
        that batch); and the largest absolute difference between logits of ``dense`` and ``kept weights``.

    Raises:
        ValueError: when the network cannot be made smaller, see :func:`bnn_lightning.compression.shrink.shrink`; or
            when the smaller network has other outputs for the first batch, beyond rounding.
        UnwritableError: when the file cannot be written.
    """
    masked = to_plain(net, keep)
    nets = {"mean weights": to_plain(net), "kept weights": masked, "dense": shrink(masked)}
    images, _ = next(iter(loader))
    for network in nets.values():
        images = in_format_for(network, images)
    _refuse_other_outputs(masked, nets["dense"], images)
    rows: dict[str, dict[str, Any]] = {}
    logits: dict[str, Tensor] = {}
    with TemporaryDirectory() as folder:
        for name, network in nets.items():
            file = path if name == "dense" else Path(folder) / f"network{file_format.ending}"
            file_format.write(network, file, images[:1].expand(2, *images.shape[1:]), record)
            logits[name], labels = logits_and_labels(network, loader)
            rows[name] = {
                "network": name,
                "parameters": sum(parameter.numel() for parameter in network.parameters()),
                "accuracy": (logits[name].argmax(-1) == labels).float().mean().item(),
                "bytes": file.stat().st_size,
                "batch": len(images),
            }
    for column, batch in (("ms_1", images[:1]), ("ms_batch", images)):
        for name, milliseconds in latencies(nets, batch).items():
            rows[name][column] = milliseconds
    return list(rows.values()), (logits["dense"] - logits["kept weights"]).abs().max().item()


def _refuse_other_outputs(net: nn.Module, smaller: nn.Module, x: Tensor) -> None:
    """A trace has no sizes: it cannot tell whether a batch norm is of features or of as many tokens."""
    with torch.inference_mode():
        outputs = net(x)
        difference = (smaller(x) - outputs).abs().max().item()
    if not outputs.isfinite().all():
        raise ValueError(
            "network must have finite outputs to be made smaller, got nan or infinite ones; train it anew."
        )
    if not difference <= 1e-4 * outputs.abs().max().item():  # nor where it is nan
        raise ValueError(
            "network must have the same outputs when it is smaller, got logits that differ by "
            f"{difference:.2g}; a batch norm of tokens, as many as there are features, is taken for one of features."
        )


def latencies(nets: Mapping[str, nn.Module], x: Tensor) -> dict[str, float]:
    """The median milliseconds of a forward pass of each network over the batch ``x``, by name.

    The networks take turns, so that a change of the machine's load affects all of them. Three rounds of warm-up are not
    counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    with torch.inference_mode():
        for _ in range(_ROUNDS + 3):
            for name, net in nets.items():
                start = time.perf_counter()
                net(x)
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * sorted(times[3:])[_ROUNDS // 2] for name, times in seconds.items()}
