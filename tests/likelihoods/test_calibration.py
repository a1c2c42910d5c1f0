import math

import numpy as np
import pytest
import torch

from bnn_lightning.likelihoods.categorical.calibration import Calibration, fit_temperature, scaled
from bnn_lightning.likelihoods.selective import binomial_upper_bound

N = 5_000


def overconfident(n=N, factor=2.0, seed=0):
    """Predictions whose labels are drawn from their own probabilities at temperature ``factor``."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, 5, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator).flatten()
    return (factor * logits).log_softmax(-1), labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(factor):
    log_probs, labels = overconfident(factor=factor)
    temperature = fit_temperature(log_probs, labels)
    # The standard error of 1/T at the truth is 1 / sqrt(Fisher information), and that of log T is the same over 1/T.
    probs = scaled(log_probs, factor).exp()
    mean = (probs * log_probs).sum(-1, keepdim=True)
    information = (probs * (log_probs - mean).square()).sum().item()
    assert abs(math.log(temperature / factor)) < 5 * factor / math.sqrt(information)


def test_temperature_has_the_lowest_nll_of_a_fine_grid():
    log_probs, labels = overconfident(500)
    grid = np.exp(np.linspace(-2, 2, 2001))
    rows = np.arange(500)

    def nll(temperature):
        z = log_probs.numpy() / temperature
        return (np.log(np.exp(z).sum(1)) - z[rows, labels.numpy()]).mean()

    best = min(grid, key=nll)
    assert fit_temperature(log_probs, labels) == pytest.approx(best, rel=0.003)


def test_scaling_keeps_the_predicted_class():
    log_probs, _ = overconfident(100)
    at = scaled(log_probs, 3.0)
    assert torch.equal(at.argmax(-1), log_probs.argmax(-1))
    torch.testing.assert_close(at.exp().sum(-1), torch.ones(100, dtype=torch.float64))


@pytest.mark.parametrize(("wrong", "trials"), [(0, 10), (3, 50), (49, 50), (12, 4000)])
def test_binomial_bound_is_where_the_tail_is_delta(wrong, trials):
    bound = binomial_upper_bound(wrong, trials, 0.01)
    tail = sum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * math.log(bound)
            + (trials - k) * math.log1p(-bound)
        )
        for k in range(wrong + 1)
    )
    assert tail == pytest.approx(0.01, rel=1e-6)


def test_binomial_bound_of_no_mistakes_and_of_nothing_but_mistakes():
    assert binomial_upper_bound(0, 100, 0.05) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert binomial_upper_bound(7, 7, 0.05) == 1


@pytest.mark.parametrize("target", [0.05, 0.1])
def test_accepted_predictions_keep_their_promise(target):
    # The bound may fail for 5 % of calibration sets: 3 of 60.
    log_probs, _ = overconfident(100_000, seed=99)
    truth = scaled(log_probs, 2.0).exp()
    failures, coverages = 0, []
    for seed in range(60):
        calibration = Calibration.fit(*overconfident(2_000, seed=seed))
        rule = calibration.accept_rule(target)
        confidence, predicted = log_probs.exp().max(-1)
        accepted = confidence >= rule.threshold
        # The error rate that the accepted images have in truth, without the noise of labels.
        risk = 1 - truth.gather(1, predicted.unsqueeze(1))[accepted].mean().item()
        failures += risk > target
        coverages.append(accepted.double().mean().item())
        assert rule.risk <= rule.bound <= target
    assert failures <= 3
    # It is no empty promise: an oracle that knows the error rates does not accept twice as many.
    confidence = truth.max(-1).values.sort(descending=True).values
    risks = 1 - confidence.cumsum(0) / torch.arange(1, len(confidence) + 1)
    oracle = (risks <= target).double().mean().item()
    assert oracle / 2 < sum(coverages) / 60 < oracle


def test_too_few_images_accept_nothing():
    log_probs = torch.tensor([[0.99, 0.01]] * 20, dtype=torch.float64).log()
    rule = Calibration.fit(log_probs, torch.zeros(20, dtype=torch.int64)).accept_rule(0.01)
    assert (rule.threshold, rule.coverage) == (math.inf, 0.0)


@pytest.mark.parametrize(("images", "mistakes"), [(100, 0), (150, 1)])
def test_all_are_accepted_where_all_are_needed_to_bound_the_risk(images, mistakes):
    # Half of them are too few to bound it, also without a mistake.
    delta = 0.05 / math.ceil(math.log2(images))
    bound = binomial_upper_bound(mistakes, images, delta)
    assert binomial_upper_bound(0, images // 2, delta) > 1.01 * bound
    log_probs = torch.linspace(0.99, 0.6, images, dtype=torch.float64)
    log_probs = torch.stack([log_probs, 1 - log_probs], 1).log()
    labels = (torch.arange(images) >= images - mistakes).long()  # the least certain are wrong
    rule = Calibration.fit(log_probs, labels).accept_rule(1.01 * bound)
    assert rule.coverage > 0.95
    assert rule.bound <= 1.01 * bound


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_prediction_sets_hold_the_label_as_often_as_promised(alpha):
    # Averaged over calibration sets the coverage is between 1 - alpha and 1 - alpha + 1 / (n + 1).
    log_probs, labels = overconfident(50_000, seed=99)
    coverages = []
    for seed in range(40):
        calibration = Calibration.fit(*overconfident(500, seed=seed))
        threshold = calibration.prediction_set_threshold(alpha)
        within = log_probs.exp().gather(1, labels.unsqueeze(1)).squeeze(1) >= threshold
        coverages.append(within.double().mean().item())
    error = (alpha * (1 - alpha) * (1 / 500 + 1 / 50_000) / 40) ** 0.5
    assert abs(sum(coverages) / 40 - (1 - alpha)) < 5 * error + 1 / 501


def test_more_confidence_is_needed_for_less_risk():
    calibration = Calibration.fit(*overconfident())
    rules = [calibration.accept_rule(target) for target in (0.02, 0.05, 0.1, 0.3)]
    assert [rule.threshold for rule in rules] == sorted((rule.threshold for rule in rules), reverse=True)
    assert [rule.coverage for rule in rules] == sorted(rule.coverage for rule in rules)


def test_a_calibration_survives_its_record():
    calibration = Calibration.fit(*overconfident(50))
    restored = Calibration(**calibration.record())
    assert restored.accept_rule(0.3) == calibration.accept_rule(0.3)
    assert restored.prediction_set_threshold(0.1) == calibration.prediction_set_threshold(0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.accept_rule(0), r"^target_risk must be an error rate between 0 and 1, such as 0\.01, got 0\.$"),
        (lambda c: c.prediction_set_threshold(1.0), r"^alpha must be between 0 and 1, such as 0\.05, got 1\.0\.$"),
        (
            lambda c: c.fit(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)),
            r"^labels must be of one calibration image or more, got none\.$",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Calibration.fit(*overconfident(50)))
