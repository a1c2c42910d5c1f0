"""AveragedSGD: SGD at a constant rate whose last weights are averaged (Izmailov et al. 2018)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnn_lightning import Inference, Likelihood, Method, Step, Terms, TrainingFacts


@dataclass(frozen=True)
class AveragedSGD(Inference):
    """Minimises the nll of one training pass; the mean of the weights after each epoch replaces them in the end.

    Args:
        lr: the rate of all epochs.
    """

    lr: float = 0.05

    def prepare(self, net: nn.Module, method: Method | None, only: str | list[str]) -> nn.Module:
        net = super().prepare(net, method, only)
        # Sums of weights are buffers: in the checkpoint, and there again when a run goes on.
        for name, parameter in list(net.named_parameters()):
            net.register_buffer(f"sum_of_{name.replace('.', '_')}", torch.zeros_like(parameter))
        net.register_buffer("epochs_averaged", torch.zeros(()))
        return net

    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        return torch.optim.SGD(net.parameters(), self.lr)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        outputs = net(x).unsqueeze(0)
        nll = likelihood.nll(outputs, y)
        return Terms(loss=nll, nll=nll, kl=torch.zeros_like(nll), kl_weight=1.0, outputs=outputs)

    @torch.no_grad()
    def after_epoch(self, net: nn.Module) -> None:
        for name, parameter in net.named_parameters():
            net.get_buffer(f"sum_of_{name.replace('.', '_')}").add_(parameter)
        net.get_buffer("epochs_averaged").add_(1)

    @torch.no_grad()
    def after_fit(self, net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], likelihood: Likelihood) -> None:
        for name, parameter in net.named_parameters():
            parameter.copy_(net.get_buffer(f"sum_of_{name.replace('.', '_')}") / net.get_buffer("epochs_averaged"))
