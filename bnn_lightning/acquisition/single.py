"""Scores that an image has by itself: entropy, BALD and the variation ratio."""

from torch import Tensor

from bnn_lightning.acquisition.chunks import check_logits, over_pool
from bnn_lightning.likelihoods.categorical.predictive import log_predictive, mutual_information, predictive_entropy


def entropy(predictive: Tensor) -> Tensor:
    """Entropy of the predictive in nats, H(mean_t p_t): ``(pool,)``, float64.

    High where the label is uncertain for any reason, also where it would stay so. "Max entropy" of Gal et al. 2017
    (arXiv:1703.02910, section 4).

    Args:
        predictive: logits ``(samples, pool, classes)``.

    Raises:
        ValueError: when they have another shape, or are not finite.
    """
    check_logits(predictive, "predictive")
    return over_pool(predictive_entropy, predictive)


def bald(predictive: Tensor) -> Tensor:
    """Mutual information of label and weights in nats, H(mean_t p_t) - mean_t H(p_t): ``(pool,)``, float64.

    Houlsby et al. 2011 (arXiv:1112.5745, eq. 2). High where the draws are sure, each of something else. At most the
    log of the number of samples; 0 for one.

    Args:
        predictive: logits ``(samples, pool, classes)``.

    Raises:
        ValueError: when they have another shape, or are not finite.
    """
    check_logits(predictive, "predictive")
    return over_pool(mutual_information, predictive)


def variation_ratio(predictive: Tensor) -> Tensor:
    """1 - max_k of the predictive probabilities: ``(pool,)``, float64.

    Freeman 1965; Gal et al. 2017 (arXiv:1703.02910, section 4).

    Args:
        predictive: logits ``(samples, pool, classes)``.

    Raises:
        ValueError: when they have another shape, or are not finite.
    """
    check_logits(predictive, "predictive")
    return over_pool(lambda logits: 1 - log_predictive(logits).exp().amax(-1).clamp_max(1), predictive)
