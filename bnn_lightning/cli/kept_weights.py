"""What prune, export and test share: the network whose weights are removed, and what is said of those that are kept."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.session import Session
from bnn_lightning.compression.sparsity import compression_ratios, sparsity_by_layer
from bnn_lightning.core.posteriors import Multiplicative, PathGaussian, Point
from bnn_lightning.core.whole_network import random_tensors
from bnn_lightning.data import DataSource
from bnn_lightning.likelihoods import Categorical
from bnn_lightning.reporting.results import sparsity
from bnn_lightning.training.loading import load_record


def load_for_removal(session: Session) -> Any:
    """Puts the checkpoint's weights into the model; gives the loader of the test images."""
    model, data = session.model, session.datamodule
    if model.members > 1:
        raise UsageError("--ckpt_path is of an ensemble; name the checkpoint of one of its networks.")
    # Of those without a KL, dropout at a fixed rate has one ratio for all.
    if model.objective == "likelihood" and all(
        isinstance(posterior, Point | Multiplicative) for _, posterior in random_tensors(model.network)
    ):
        raise UsageError(
            "--ckpt_path is of a network whose weights have no signal-to-noise ratio of their own, by which some could "
            "be removed; bnn export --what mean writes it whole."
        )
    if any(isinstance(posterior, PathGaussian) for _, posterior in random_tensors(model.network)):
        raise UsageError(
            "--ckpt_path is of a network whose sigma says how far its weights have moved in training: those that stood "
            "still, such as the weights of dead units, have the highest |mu| / sigma."
        )
    if not isinstance(model.likelihood, Categorical):
        name = type(model.likelihood).__name__
        raise UsageError(f"--ckpt_path is of a network under {name}; what removing weights costs is known for classes.")
    load_record(model, session.checkpoint)
    if not isinstance(data, DataSource):
        data.prepare_data()
        data.setup("test")
    loaders = data.test_dataloader()
    return loaders[0] if isinstance(loaders, list) else loaders  # the others are not of the test images


def sparsity_results(network: nn.Module, keep: Mapping[str, Tensor], rule: str) -> dict[str, Any]:
    """The sparsity of each layer and of the network in plain values; ``rule`` says which weights are kept."""
    return sparsity(sparsity_by_layer(network, keep), compression_ratios(network, keep), rule)


def kept_below(threshold: float) -> str:
    """Which weights are kept by their log alpha, in words."""
    return f"weights with log alpha below {threshold:g}"
