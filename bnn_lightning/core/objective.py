"""The evidence lower bound and the training loss: the only place where the number N of training examples enters."""

from typing import Literal, TypeVar

from torch import Tensor

Objective = Literal["elbo", "regularised", "likelihood"]
"""What nll + KL/N is, see :attr:`bnn_lightning.Method.objective`."""

Number = TypeVar("Number", float, Tensor)


def elbo(nll: Number, kl: Number, num_train: int) -> Number:
    """The evidence lower bound per training example, elbo/N = -(nll + KL/N), in nats.

    The KL weight is always 1, whatever weight trained the network: only then is it a bound on log p(data) / N.
    Blundell et al. 2015 (arXiv:1505.05424), eq. 1-2.

    Args:
        nll: mean over examples of -log p(y | x, w) with w drawn from the posterior, in nats.
        kl: KL(posterior || prior) in nats, summed over all weights, as :func:`bnn_lightning.kl` computes it.
        num_train: N, the number of distinct training examples: without the hold-out, before augmentation.
    """
    return -(nll + kl / num_train)


def variational_loss(nll: Number, kl: Number, num_train: int, kl_weight: float = 1.0) -> Number:
    """The training loss per training example, nll + kl_weight * KL/N, in nats; with weight 1 it is -elbo/N.

    N times this loss is the total form, N * nll + kl_weight * KL. With several weight samples in a step, ``nll`` is the
    mean over the samples and ``kl`` is counted once. Arguments are those of :func:`elbo`.
    """
    return nll + kl_weight * kl / num_train


def objective_values(
    objective: Objective, nll: float, kl: float, num_train: int, kl_weight: float | None = None
) -> dict[str, float]:
    """Loss, KL, KL/N and elbo/N, all at KL weight 1, by the names under which they are logged.

    In training there are also the weight and the loss with it, ``weighted_loss``. Without a KL there is the loss alone.

    Args:
        objective: see :attr:`bnn_lightning.Method.objective`; ``likelihood`` has no KL.
        nll: mean over examples and weight samples, in nats.
        kl: summed over all weights, in nats.
        num_train: N.
        kl_weight: the weight that trains; None where nothing is trained.
    """
    if objective == "likelihood":
        return {"loss": nll}
    bound = elbo(nll, kl, num_train)
    values = {"loss": -bound, "kl": kl, "kl_per_n": kl / num_train, "elbo_per_n": bound}
    if kl_weight is not None:
        values |= {"kl_weight": kl_weight, "weighted_loss": variational_loss(nll, kl, num_train, kl_weight)}
    return values
