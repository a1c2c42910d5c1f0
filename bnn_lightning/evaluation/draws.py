"""How samples are drawn: settings, the kinds of draws, and how many samples they come to; networks drawn together."""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn

from bnn_lightning.core.posteriors import JointPart
from bnn_lightning.core.whole_network import methods_of, random_tensors
from bnn_lightning.evaluation.logit_normals import SAMPLES

Draws = Literal["weights", "local", "mean", "moments"]
"""How a sample is drawn. ``weights``: one draw of all weights, the same for all images. ``local``: a forward pass as in
training, in which each image may have noise of its own; where tensors are correlated with each other, which a forward
pass from layer to layer cannot draw, local draws are weight draws. ``mean``: the mean weights, without noise.
``moments``: mean and variance of every activation in one pass, see :class:`~bnn_lightning.MomentNetwork`; samples are
of the outputs, from normal distributions with these moments."""

CHUNK = 256


@dataclass(frozen=True)
class Sampling:
    """How samples of a network's outputs are drawn.

    Args:
        val_samples: samples in validation.
        test_samples: samples in test and predict.
        draws: how they are drawn in test and predict: weights (the same for all images), local (as in training), mean
            (no noise) or moments (mean and variance of every activation in one pass, whatever test_samples is); null is
            weights, or local where the noise is not on weights.
        chunk: images times samples that are computed at once, which bounds memory.
        seed: of the samples in validation, test and predict.
    """

    val_samples: int = 5
    test_samples: int = 25
    draws: Draws | None = None
    chunk: int = CHUNK
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("val_samples", "test_samples", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")


class Ensemble(nn.Module):
    """Networks of one architecture whose samples are pooled, so that the predictive is an equal mixture of theirs.

    It cannot be called; :class:`Sampler` draws its samples.

    Args:
        members: the networks.
    """

    def __init__(self, members: list[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError(
            f"members must be 1 to train or call a network, got {len(self.members)}: train each by itself; "
            "Sampler(ensemble, samples)(x) predicts with all of them."
        )


def pooled_samples(samples: int, members: int) -> int:
    """``samples`` rounded up to a multiple of ``members``, so that each member of an ensemble has equally many."""
    return -(-samples // members) * members


def draws_of(net: nn.Module, draws: Draws | None = None) -> Draws:
    """How samples of ``net`` are drawn: ``draws`` if given, else the default for its noise; ``mean`` if it has none.

    The default is weight draws where all noise is on weights, else local draws. Weight draws are the same function in
    every batch and cost half as much as local draws; measured with LeNets under LRT on MNIST, they detect
    out-of-distribution images at least as well (docs/measurements.md). Where tensors are parts of a joint posterior,
    local draws are weight draws too.

    Raises:
        ValueError: when ``draws`` is unknown, or ``weights`` although a method's noise is on inputs or outputs.
    """
    if draws is not None and draws not in get_args(Draws):
        raise ValueError(f"draws must be one of {', '.join(get_args(Draws))}, got {draws!r}.")
    methods = methods_of(net)
    if not methods:
        return "mean"
    refusing = sorted(type(method).__name__ for method in methods if method.noise_on != "weights")
    if draws == "weights" and refusing:
        raise ValueError(
            f"draws must be local, mean or moments for {refusing[0]}, whose noise is not on weights, got weights."
        )
    if draws == "local" and any(isinstance(posterior, JointPart) for _, posterior in random_tensors(net)):
        return "weights"
    return draws or ("local" if refusing else "weights")


def samples_of(draws: Draws, samples: int, members: int) -> int:
    """How many samples there are where ``samples`` are asked for: the same of each of ``members`` networks."""
    if draws == "mean":
        return members
    if draws == "moments":
        return members * max(2, SAMPLES // members // 2 * 2)  # an even number of each
    return pooled_samples(samples, members)
