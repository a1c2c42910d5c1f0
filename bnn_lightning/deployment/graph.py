"""PredictiveGraph: a checkpoint's whole predictive as one plain module, from pixels to probabilities, for exports."""

import contextlib
import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnn_lightning.checkpoints.parts import Trained
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.core.input_format import in_format_for
from bnn_lightning.core.moments import MomentNetwork, MomentsError
from bnn_lightning.core.whole_network import methods_of
from bnn_lightning.deployment.inputs import GraphInput
from bnn_lightning.evaluation.draws import Draws, Ensemble, samples_of
from bnn_lightning.evaluation.logit_normals import (
    correlated_by,
    has_correlated_samples,
    moved_by,
    normals,
    uncorrelated_normals,
)
from bnn_lightning.evaluation.sampler import Sampler
from bnn_lightning.likelihoods.base import Likelihood


class PredictiveGraph(nn.Module):
    """Preparation, samples of the outputs, their predictive and its calibration: ``graph(x)`` gives tensors by name.

    It draws nothing, and is made of torch's functions without branches on values, so that ``torch.export`` takes it. Of
    M networks with S samples each, the predictive is the equal mixture of the M S.

    Args:
        graph_input: what it takes.
        networks: modules from what a network takes to samples of its outputs, ``(samples, batch, outputs)``.
        likelihood: of the labels; :meth:`bnn_lightning.Likelihood.exported` names what comes out.
        calibration: of samples of this kind, or None.
        draws: the kind.
        samples: their number, of all networks together.
    """

    def __init__(
        self,
        graph_input: GraphInput,
        networks: Sequence[nn.Module],
        likelihood: Likelihood,
        calibration: Any,
        draws: Draws,
        samples: int,
    ):
        super().__init__()
        self.input, self.likelihood, self.calibration = graph_input, likelihood, calibration
        self.draws, self.samples = draws, samples
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """What :meth:`bnn_lightning.Likelihood.exported` gives, ``(batch, ...)`` by name, of a batch of inputs."""
        # Each pass has a copy: a network may change its inputs in place.
        x = self.input.prepared(x)
        outputs = torch.cat([network(x.clone()) for network in self.networks])
        return self.likelihood.exported(outputs, self.calibration)


class MeanSample(nn.Module):
    """The network at its mean weights as one sample: outputs ``(1, batch, outputs)``."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = to_plain(net).eval().float()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).unsqueeze(0)


class MomentSamples(nn.Module):
    """Samples with the mean and the covariance, or variance, that one pass gives, by normals that are in the graph.

    They are those of :class:`bnn_lightning.Sampler`.

    Args:
        net: a network with random layers.
        samples: their number, even.
        seed: of the normals, see :mod:`bnn_lightning.evaluation.logit_normals`.
        shape: of an example.

    Raises:
        MomentsError: when mean and variance cannot be propagated.
    """

    normals: Tensor

    def __init__(self, net: nn.Module, samples: int, seed: int, shape: Sequence[int]):
        super().__init__()
        self.net = MomentNetwork(copy.deepcopy(net).float()).eval()
        with torch.no_grad():
            outputs = self.net(torch.zeros(1, *shape))[0].shape[-1]
        self.is_correlated = self.net.has_covariance and has_correlated_samples(samples, outputs)
        z = (uncorrelated_normals if self.is_correlated else normals)(samples, outputs, seed)
        self.register_buffer("normals", z.float())

    def forward(self, x: Tensor) -> Tensor:
        if self.is_correlated:
            return correlated_by(self.normals, *self.net.covariance(x))
        return moved_by(self.normals, *self.net(x))


class DrawnSamples(nn.Module):
    """The network at several stored draws of its weights: outputs ``(draws, batch, outputs)``.

    Args:
        net: a network with random layers.
        weights: its draws by name, ``(draws, ...)``, see :meth:`bnn_lightning.Sampler.drawn`.
    """

    def __init__(self, net: nn.Module, weights: Mapping[str, Tensor]):
        super().__init__()
        self.net = to_plain(net).eval().float()
        self.names, self.draws = list(weights), len(next(iter(weights.values())))
        for number, name in enumerate(self.names):
            # The mean weights, in whose place the draws come, are not to be stored.
            owner, _, tensor = name.rpartition(".")
            self.net.get_submodule(owner).register_parameter(tensor, None)
            for index, value in enumerate(weights[name]):
                self.register_buffer(f"draw_{index}_{number}", value.float().clone())

    def forward(self, x: Tensor) -> Tensor:
        # One after another: torch.func.vmap's pooling and convolutions would fix the size of the batch.
        return torch.stack(
            [functional_call(self.net, self._weights(index), (x.clone(),)) for index in range(self.draws)]
        )

    def _weights(self, index: int) -> dict[str, Tensor]:
        return {name: self.get_buffer(f"draw_{index}_{number}") for number, name in enumerate(self.names)}


def predictive_graph(trained: Trained, data: Mapping[str, Any], what: str) -> PredictiveGraph:
    """The graph of a checkpoint's predictive.

    Args:
        trained: what the checkpoint holds.
        data: its description of the examples.
        what: ``moments``: mean and variance of every activation in one pass. ``mean``: the mean weights.
            ``samples:T``: T draws of the weights, those of :class:`bnn_lightning.Sampler` with numbers 0 to T - 1, all
            of them stored. ``ensemble``: of several networks, moments where they have random layers through which these
            go, else mean weights. Of several networks each is a mixture over all.

    Raises:
        ValueError: when ``what`` is none of these, or not possible for this network; when ``data`` do not say what an
            example is.
    """
    kind, count = _parsed(what)
    graph_input = GraphInput.of(data)
    nets = list(trained.network.members) if isinstance(trained.network, Ensemble) else [trained.network]
    _check(kind, what, trained.network, len(nets))
    for net in nets:
        in_format_for(net, torch.zeros(1, *graph_input.shape))  # whose weights become contiguous where they must be
    draws, networks = _networks(kind, count, what, trained, nets, graph_input.shape)
    samples = samples_of(draws, count, len(nets))
    return PredictiveGraph(
        graph_input, networks, trained.likelihood, trained.calibration.get(draws), draws, samples
    ).eval()


def _parsed(what: str) -> tuple[str, int]:
    """The kind, and the number of draws."""
    match = re.fullmatch(r"(moments|mean|ensemble)|(samples):([1-9]\d*)", what)
    if match is None:
        raise ValueError(f"what must be moments, mean, ensemble, or samples:T such as samples:25, got {what}.")
    return match[1] or match[2], int(match[3] or 1)


def _check(kind: str, what: str, network: nn.Module, members: int) -> None:
    methods = methods_of(network)
    if kind == "ensemble" and members == 1:
        raise ValueError(
            f"what must be moments, mean or samples:T for a checkpoint of one network, got {what}; bnn ensemble joins "
            "several."
        )
    if kind in ("moments", "samples") and not methods:
        raise ValueError(f"what must be mean for networks without random layers, got {what}.")


def _networks(
    kind: str, count: int, what: str, trained: Trained, nets: list[nn.Module], shape: Sequence[int]
) -> tuple[Draws, list[nn.Module]]:
    """The kind of samples, and the module of each network."""
    seed = trained.sampling.seed
    refusing = sorted(type(method).__name__ for method in methods_of(trained.network) if method.noise_on != "weights")

    def moments() -> list[MomentSamples]:
        samples = samples_of("moments", count, len(nets)) // len(nets)
        return [MomentSamples(net, samples, seed, shape) for net in nets]

    if kind == "samples" and refusing:
        other = "mean"
        with contextlib.suppress(MomentsError):
            moments()
            other = "moments or mean"
        raise ValueError(f"what must be {other} for {refusing[0]}, whose noise is not on weights, got {what}.")
    if kind == "samples":
        sampler = Sampler(trained.network, count, "weights", seed, kept_bytes=0)
        return "weights", [DrawnSamples(net, sampler.drawn(member)) for member, net in enumerate(nets)]
    if kind != "mean" and methods_of(trained.network):
        try:
            return "moments", list(moments())
        except MomentsError as error:
            if kind == "moments":
                other = "mean" if refusing else "mean or samples:T"
                raise ValueError(f"what must be {other} for {error.why}, got {what}.") from error
    return "mean", [MeanSample(net) for net in nets]
