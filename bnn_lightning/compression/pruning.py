"""What removing weights costs: accuracy by share removed, and the smaller network beside the one it came from."""

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnn_lightning.compression.shrink import shrink
from bnn_lightning.compression.sparsity import masks_without, weight_log_alphas
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.deployment.pt2 import write_dense


def export_dense(
    net: nn.Module, keep: Mapping[str, Tensor], loader: Any, path: Path, record: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], float]:
    """Writes the smaller network of the kept weights, and measures it beside the one as trained and the one with zeros.

    Args:
        net: a network with random layers.
        keep: masks over its weights, as :func:`bnn_lightning.compression.sparsity.masks` gives them.
        loader: test images and labels; its first batch is what latency is measured on.
        path: the file of the smaller network.
        record: plain values that go into the file.

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
        for name, one in nets.items():
            file = path if name == "dense" else Path(folder) / "network.pt2"
            write_dense(one, file, images[:1].expand(2, *images.shape[1:]), record)
            logits[name], labels = _logits(one, loader)
            rows[name] = {
                "network": name,
                "parameters": sum(parameter.numel() for parameter in one.parameters()),
                "accuracy": (logits[name].argmax(-1) == labels).float().mean().item(),
                "bytes": file.stat().st_size,
                "batch": len(images),
            }
    for column, batch in (("ms_1", images[:1]), ("ms_batch", images)):
        for name, milliseconds in latencies(nets, batch).items():
            rows[name][column] = milliseconds
    return list(rows.values()), (logits["dense"] - logits["kept weights"]).abs().max().item()


PRUNING_SHARES = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99)


def pruning_sweep(net: nn.Module, loader: Any, shares: Iterable[float]) -> list[dict[str, float]]:
    """Accuracy and NLL of the mean weights without each share of them, those of lowest |mu| / sigma removed first.

    Blundell et al. 2015 (arXiv:1505.05424), section 5.1 and table 2.
    """
    ranked = torch.cat([values.flatten() for values in weight_log_alphas(net).values()]).sort().values
    rows = []
    for share in shares:
        keep = masks_without(net, share)
        logits, labels = _logits(to_plain(net, keep), loader)
        kept = sum(int(mask.sum()) for mask in keep.values())
        rows.append(
            {
                "removed": share,
                "kept": kept,
                "min_signal_to_noise": math.exp(-0.5 * ranked[kept - 1].item()) if kept else math.inf,
                "accuracy": (logits.argmax(-1) == labels).float().mean().item(),
                "nll": F.cross_entropy(logits, labels).item(),
            }
        )
    return rows


def _logits(net: nn.Module, loader: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits ``(images, classes)`` and labels over a whole loader."""
    net.eval()
    with torch.no_grad():
        parts = [(net(images), labels) for images, labels in loader]
    return torch.cat([logits for logits, _ in parts]), torch.cat([labels for _, labels in parts])


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
