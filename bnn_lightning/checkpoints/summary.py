"""TrainingSummary: how far the run had come that a checkpoint was saved in, and what must stand beside its results."""

from dataclasses import dataclass

from bnn_lightning.core.objective import objective_values
from bnn_lightning.core.whole_network import Objective

NOT_CONVERGED = "posterior not converged"


@dataclass(frozen=True)
class TrainingSummary:
    """How far a run had come: means over its last epoch, on training data, with one number for each quantity.

    Args:
        epoch: from 0.
        num_train: N, the distinct training examples.
        nll: the expected negative log-likelihood, in nats an example.
        score: of the likelihood, such as accuracy; 1 is best.
        kl: of the whole network, in nats.
        kl_weight: that trained it.
        elbo_per_n: at KL weight 1, whatever weight trained the network; None where there is no KL, as in a
            deterministic network and under dropout with a fixed rate.
        uninformed_nll: of a prediction that looks at no input.
        uninformed_score: likewise.
        is_bound: whether elbo_per_n is a bound on log p(data), see :attr:`bnn_lightning.Method.objective`.
        sparsity: the share of weights that can be removed; None where the method removes none.
        departures: what made the loss another one than that of the training images, such as class weights; nll, score
            and elbo_per_n are without weights and smoothing, but of the images that were drawn.
    """

    epoch: int
    num_train: int
    nll: float
    score: float
    kl: float
    kl_weight: float
    elbo_per_n: float | None
    uninformed_nll: float
    uninformed_score: float
    is_bound: bool = True
    sparsity: float | None = None
    departures: tuple[str, ...] = ()

    @property
    def kl_per_n(self) -> float | None:
        """KL/N, in nats; None where there is no KL."""
        return None if self.elbo_per_n is None else self.kl / self.num_train

    def values(self, score: str, objective: Objective) -> dict[str, float]:
        """The numbers by the names that they are logged under; ``score`` is that of the likelihood's."""
        values = {"nll": self.nll, score: self.score}
        values |= objective_values(objective, self.nll, self.kl, self.num_train, self.kl_weight)
        return values if self.sparsity is None else values | {"sparsity": self.sparsity}

    @property
    def caveats(self) -> list[str]:
        """What must stand beside every result of these weights."""
        no_elbo = "" if self.elbo_per_n is None else ": loss is no ELBO"
        caveats = [f"{departure}{no_elbo}" for departure in self.departures]
        if self.elbo_per_n is not None:
            if abs(self.kl_weight - 1) > 1e-6:
                caveats.append("tempered")
            # The untrained prior guesses with no KL to pay: a posterior that is worth less has not been found yet.
            if not self.elbo_per_n >= -self.uninformed_nll:
                caveats.append(NOT_CONVERGED)
            if not self.is_bound:
                caveats.append("elbo/N is no bound")
        if self.is_not_learning:
            caveats.append("not learning")
        return caveats

    @property
    def is_not_learning(self) -> bool:
        """Whether the score is below twice that of guessing after two epochs, or a tenth of the way from there to 1."""
        guessing = self.uninformed_score
        return self.epoch >= 1 and not self.score >= min(2 * guessing, guessing + 0.1 * (1 - guessing))

    @property
    def has_collapsed(self) -> bool:
        """Whether the KL has erased the weights: nearly all can be removed, and the network is as good as guessing."""
        # The nll of numbers can be negative: a tenth of its size is what has to be gained over guessing.
        guessing = self.uninformed_nll
        return self.sparsity is not None and self.sparsity > 0.99 and self.nll > guessing - 0.1 * abs(guessing)
