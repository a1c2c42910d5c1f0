"""The objective: the evidence lower bound, and the one place where the number of training examples enters."""

from typing import TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def elbo(nll: Number, kl: Number, num_train: int) -> Number:
    """The evidence lower bound per training example, elbo/N = -(nll + KL/N), in nats.

    Always at KL weight 1, whatever weight trained the network: only then is it a bound on log p(data).
    Blundell et al. 2015 (arXiv:1505.05424), eq. 1-2.

    Args:
        nll: mean over examples of -log p(y | x, w) with w drawn from the posterior.
        kl: KL(posterior || prior) summed over all weights, as :func:`bnn_lightning.kl` gives it.
        num_train: N, the distinct examples trained on: after the hold-out and any subset, before augmentation.
    """
    return -(nll + kl / num_train)


def variational_loss(nll: Number, kl: Number, num_train: int, kl_weight: float = 1.0) -> Number:
    """What is minimised, per training example: nll + kl_weight * KL/N; with weight 1 it is -elbo/N.

    Times N it is the total form, N * nll + kl_weight * KL. For S weight samples in a step, ``nll`` is the mean of the
    S values and ``kl`` is counted once.
    """
    return nll + kl_weight * kl / num_train


def objective_values(objective: str, nll: float, kl: float, num_train: int, kl_weight: float = 1.0) -> dict[str, float]:
    """Loss, KL and ELBO under the names that they are logged by; of ``likelihood``, which has no KL, the loss alone.

    Args:
        objective: see :attr:`bnn_lightning.Method.objective`.
        nll: mean over examples and weight samples.
        kl: summed over all weights.
        num_train: N.
        kl_weight: of the loss; the ELBO is at weight 1.
    """
    if objective == "likelihood":
        return {"loss": nll}
    return {
        "loss": variational_loss(nll, kl, num_train, kl_weight),
        "kl": kl,
        "kl_per_n": kl / num_train,
        "kl_weight": kl_weight,
        "elbo_per_n": elbo(nll, kl, num_train),
    }
