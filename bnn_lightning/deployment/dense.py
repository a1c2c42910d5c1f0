"""The smaller network of the kept weights, written and measured beside the one that it came from."""

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from bnn_lightning.compression.pruning import logits_over
from bnn_lightning.compression.shrink import shrink
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.deployment.base import ExportFormat
from bnn_lightning.deployment.pt2 import Pt2


def export_dense(
    net: nn.Module,
    keep: Mapping[str, Tensor],
    loader: Any,
    path: Path,
    record: Mapping[str, Any],
    file_format: ExportFormat = Pt2(),  # noqa: B008
) -> tuple[list[dict[str, Any]], float]:
    """Writes the smaller network of the kept weights, and measures it beside the one as trained and the one with zeros.

    Args:
        net: a network with random layers.
        keep: masks over its weights, as :func:`bnn_lightning.compression.sparsity.masks` gives them.
        loader: test images and labels; its first batch is what latency is measured on.
        path: the file of the smaller network.
        record: plain values that go into the file.
        file_format: of the file.

    Returns:
        a row for each of the three networks, and the largest difference between a logit of the smaller network and of
        the one with zeros.
    """
    masked = to_plain(net, keep)
    nets = {"mean weights": to_plain(net), "kept weights": masked, "dense": shrink(masked)}
    images, _ = next(iter(loader))
    rows: dict[str, dict[str, Any]] = {}
    logits: dict[str, Tensor] = {}
    with TemporaryDirectory() as folder:
        for name, network in nets.items():
            file = path if name == "dense" else Path(folder) / f"network{file_format.ending}"
            file_format.write(network, file, images[:1].expand(2, *images.shape[1:]), record)
            logits[name], labels = logits_over(network, loader)
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


def latencies(nets: Mapping[str, nn.Module], x: Tensor, rounds: int = 30) -> dict[str, float]:
    """Milliseconds of a forward pass of each network over the batch ``x``: medians, measured in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    with torch.inference_mode():
        for _ in range(rounds + 3):
            for name, net in nets.items():
                start = time.perf_counter()
                net(x)
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * sorted(times[3:])[rounds // 2] for name, times in seconds.items()}  # the first 3 warm up
