"""Marks of numbers that come from too few images."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import beta, binom

from bnn_lightning.likelihoods import Categorical
from bnn_lightning.likelihoods.categorical.calibration import Calibration, fit_temperature
from bnn_lightning.likelihoods.categorical.credibility import (
    ece_caveats,
    expected_calibration_error,
    temperature_caveats,
)
from bnn_lightning.likelihoods.categorical.decisions import decision_rule
from bnn_lightning.likelihoods.categorical.scores import calibration_error
from bnn_lightning.likelihoods.selective import examples_needed


def calibrated_predictions(images, sharpness=6.0, classes=10):
    """Log-probabilities, and labels that are drawn from them."""
    truth = sharpness * torch.nn.functional.one_hot(torch.randint(0, classes, (images,)), classes)
    log_probs = (truth + 1.5 * torch.randn(images, classes)).log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp(), 1).flatten()


def test_a_temperature_from_few_images_or_at_its_bound_says_so():
    log_probs, labels = calibrated_predictions(600)
    calibration = Calibration.fit(log_probs, labels)
    assert temperature_caveats(calibration) == []
    assert temperature_caveats(Calibration.fit(log_probs[:499], labels[:499])) == ["temperature from only 499 images"]
    # Without a mistake nothing stops the fit from making predictions more confident.
    certain = Calibration.fit(log_probs, log_probs.argmax(-1))
    assert temperature_caveats(certain) == ["temperature at its bound 0.05"]
    assert temperature_caveats(Calibration.fit(log_probs, log_probs.argmin(-1))) == ["temperature at its bound 20"]


@pytest.mark.slow
def test_a_temperature_from_500_images_is_known_to_5_percent():
    # The number that the caveat's limit is chosen by; of 60 fits a standard deviation is known to 9 %.
    fits = torch.tensor([fit_temperature(*calibrated_predictions(500)) for _ in range(60)])
    assert fits.log().std().item() == pytest.approx(0.05, rel=5 / 120**0.5)


@pytest.mark.parametrize("images", [60, 700])
def test_the_ece_of_calibrated_predictions_is_that_of_labels_drawn_from_them(images):
    log_probs, _ = calibrated_predictions(images)
    confidence = log_probs.amax(-1).exp()
    draws = [calibration_error(confidence, torch.rand(images) < confidence).item() for _ in range(300)]
    spread = torch.tensor(draws).std().item()
    expected = sum(draws) / 300
    assert expected_calibration_error(confidence) == pytest.approx(
        expected, abs=5 * spread * (1 / 300 + 1 / 500) ** 0.5
    )
    (caveat,) = ece_caveats(confidence)
    assert (
        caveat == f"ECE of only {images} images: about {expected_calibration_error(confidence):.3f} even if calibrated"
    )


def test_the_ece_of_many_images_needs_no_caveat():
    assert ece_caveats(torch.rand(1000)) == []


def test_a_likelihood_says_all_of_it():
    log_probs, labels = calibrated_predictions(300)
    caveats = Categorical().caveats({"log_probs": log_probs}, labels, Calibration.fit(log_probs, labels), ())
    assert [caveat.split(" of only")[0] for caveat in caveats] == ["ECE", "temperature from only 300 images"]
    majority = torch.zeros(300, 10).scatter_(1, torch.full((300, 1), 3), 9.0).log_softmax(-1)
    caveats = Categorical().caveats({"log_probs": majority}, torch.full((300,), 3), None, ("a", "b", "c", "owl"))
    assert caveats[:2] == [
        "no images of 9 of 10 classes (a; b; c and 6 more)",
        "not shown to be more accurate than always owl (100.0 % of the images)",
    ]


def test_the_rate_of_one_calibration_set_is_that_of_a_beta_distribution():
    log_probs, labels = calibrated_predictions(200)
    calibration = Calibration.fit(log_probs, labels)
    for alpha in (0.05, 0.2):
        rank = int(alpha * 201)  # 10.05 and 40.2
        assert calibration.prediction_set_bound(alpha) == pytest.approx(beta.ppf(0.95, rank, 201 - rank), rel=1e-6)
    assert calibration.prediction_set_bound(0.004) == 0


def test_the_rules_say_what_they_are_too_few_for():
    log_probs, labels = calibrated_predictions(15)
    few = Calibration.fit(log_probs, labels)
    words = decision_rule(few, 0.01, 0.05)
    delta = 0.05 / 4
    needed = examples_needed(15, 0.01)
    assert binom.cdf(0, needed, 0.01) <= delta < binom.cdf(0, needed - 1, 0.01)
    assert "All abstain: 15 calibration images cannot bound" in words
    assert f"which takes {needed} without a mistake" in words
    assert "Prediction sets hold every class: 15 calibration images are too few" in words
    assert "which takes 19; hold out more" in words
    assert "calibrated_confidence is to be read with care: temperature" in words
    log_probs, labels = calibrated_predictions(2000)
    words = decision_rule(Calibration.fit(log_probs, labels), 0.05, 0.05)
    assert "rough" not in words
    assert "care" not in words
    # Half of 120 images are right: a bound that holds, of shares that are rough.
    confidence = torch.linspace(0.99, 0.2, 120, dtype=torch.float64)
    half = replace(few, confidence=confidence, correct=torch.arange(120) < 60, label_prob=confidence.flip(0))
    accepted = int((confidence >= half.accept_rule(0.2).threshold).sum())
    assert 60 <= accepted < 100
    assert f"of so few ({accepted}) that these shares are rough" in decision_rule(half, 0.2, 0.05)
