"""Selective prediction: the rule that accepts most predictions while few of the accepted ones are wrong."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

CONFIDENCE_LEVEL = 0.95
"""The probability, over calibration sets, that the bound on the error rate of accepted predictions holds."""


@dataclass(frozen=True)
class AcceptRule:
    """Accepts predictions whose confidence is at least a threshold.

    Args:
        threshold: on the confidence, such as the probability of the predicted class; infinite if no threshold meets
            the target risk, so that nothing is accepted.
        coverage: the fraction of the calibration examples that is accepted.
        risk: the error rate of the accepted calibration examples.
        bound: an upper bound on the true error rate of accepted predictions, which holds with probability
            :data:`CONFIDENCE_LEVEL` over calibration sets.
    """

    threshold: float
    coverage: float
    risk: float
    bound: float


def accept_rule(confidence: Tensor, correct: Tensor, target_risk: float) -> AcceptRule:
    """The rule with the highest coverage whose bound on the error rate is at most ``target_risk``.

    Selection with guaranteed risk (Geifman & El-Yaniv 2017, arXiv:1705.08500, algorithm 1): a binary search over
    thresholds, here from :func:`examples_needed` on. Each step computes a binomial bound that fails with probability at
    most (1 - 0.95) / steps, so that all of them hold together with probability 0.95.

    Args:
        confidence: of calibration examples, ``(examples,)``, in falling order.
        correct: whether each was predicted well, ``(examples,)``, bool, in the same order.
        target_risk: the highest allowed error rate.

    Raises:
        ValueError: when ``target_risk`` is not between 0 and 1.
    """
    if not 0 < target_risk < 1:
        raise ValueError(f"target_risk must be an error rate between 0 and 1, such as 0.01, got {target_risk}.")
    examples = len(confidence)
    mistakes = (~correct).long().cumsum(0)
    steps, delta = _search(examples)
    best = AcceptRule(math.inf, 0.0, 0.0, 0.0)
    # Fewer than are needed even without a mistake would be no reason to try still fewer.
    low, high = examples_needed(examples, target_risk) - 1, examples
    for _ in range(steps):
        if low >= high:
            break
        count = (low + high + 1) // 2
        # Examples of equal confidence are accepted together.
        threshold = confidence[count - 1]
        accepted = int((confidence >= threshold).sum())
        wrong = int(mistakes[accepted - 1])
        bound = binomial_upper_bound(wrong, accepted, delta)
        if bound <= target_risk:
            if accepted / examples > best.coverage:
                best = AcceptRule(threshold.item(), accepted / examples, wrong / accepted, bound)
            low = count
        else:
            high = count - 1
    return best


def cure_of_abstaining(rule_of: Callable[[float], AcceptRule]) -> str:
    """What helps where nothing is accepted: the lowest target risk, in hundredths, that can be bound, and more images.

    Args:
        rule_of: gives the rule for a target risk, see :func:`accept_rule`.
    """
    risks = (hundredths / 100 for hundredths in range(1, 100))
    least = next((risk for risk in risks if not math.isinf(rule_of(risk).threshold)), None)
    more = "hold out more when training (val_split)"
    return more if least is None else f"the least that they can is a target_risk of {least:g}; or {more}"


def examples_needed(examples: int, target_risk: float) -> int:
    """How many of ``examples`` have to be accepted, without a mistake, before the bound is at most ``target_risk``."""
    _, delta = _search(examples)
    return math.ceil(math.log(delta) / math.log1p(-target_risk))


def _search(examples: int) -> tuple[int, float]:
    """The steps of the search for a threshold, and the probability with which the bound of each may fail."""
    steps = max(1, math.ceil(math.log2(examples)))
    return steps, (1 - CONFIDENCE_LEVEL) / steps


def binomial_upper_bound(wrong: int, trials: int, delta: float) -> float:
    """The error rate at which ``wrong`` or fewer mistakes in ``trials`` have probability ``delta``.

    With probability 1 - ``delta`` the true error rate is below this (Clopper & Pearson 1934).
    """
    if wrong >= trials:
        return 1.0
    k = torch.arange(wrong + 1, dtype=torch.float64)
    log_binomials = math.lgamma(trials + 1) - torch.lgamma(k + 1) - torch.lgamma(trials - k + 1)

    low, high = wrong / trials, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        tail = (log_binomials + k * math.log(rate) + (trials - k) * math.log1p(-rate)).logsumexp(0).exp().item()
        low, high = (rate, high) if tail > delta else (low, rate)
    return high
