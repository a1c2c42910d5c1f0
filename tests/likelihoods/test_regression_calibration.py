"""Calibration of numbers: the factor on the spread, conformal coverage, accept or abstain, and what is said of them."""

import math

import pytest
import torch

from bnn_lightning import GaussianLikelihood, Units
from bnn_lightning.likelihoods.regression.calibration import Calibration
from bnn_lightning.likelihoods.regression.mixture import Mixture


def predictions(count, factor=1.0, targets=1, generator=None):
    """Predictives whose true standard deviation is ``factor`` times theirs, and the truth."""
    generator = generator or torch.Generator().manual_seed(0)
    stds = 0.5 + torch.rand(count, 1, targets, generator=generator, dtype=torch.float64)
    mixture = Mixture(torch.zeros(count, 1, targets, dtype=torch.float64), stds)
    return mixture, factor * stds[:, 0] * torch.randn(count, targets, generator=generator, dtype=torch.float64)


def test_the_factor_on_the_spread_is_found():
    mixture, y = predictions(5000, factor=1.7, targets=2)
    y[:, 1] /= 3.4
    scale = Calibration.fit(mixture, y).std_scale
    # The standard error of a standard deviation of 5,000 normal numbers is 1 % of it.
    assert scale[0].item() == pytest.approx(1.7, rel=0.04)
    assert scale[1].item() == pytest.approx(0.5, rel=0.04)
    # In closed form for one normal component: the root mean square of (y - mean) / std.
    expected = (y / mixture.std()).square().mean(0).sqrt()
    torch.testing.assert_close(scale, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("count", "alpha"), [(99, 0.1), (250, 0.1), (250, 0.05)])
def test_conformal_intervals_cover_as_promised_over_200_resamplings(count, alpha):
    # The predictives are wrong (three times too narrow, with skewed errors), and still the coverage holds.
    generator = torch.Generator().manual_seed(1)
    shares = []
    for _ in range(200):
        mixture, y = predictions(count + 2000, 3.0, generator=generator)
        y = y + y.square() / 5
        calibration = Calibration.fit(mixture[:count], y[:count])
        half = calibration.conformal_factor(alpha) * mixture.std()[count:]
        shares.append((y[count:].abs() <= half).double().mean().item())
    coverage = sum(shares) / 200
    # ceil((1 - alpha) (n + 1)) / (n + 1) exactly; its mean over 200 calibrations has a standard error of 0.2 %.
    assert coverage == pytest.approx(math.ceil((1 - alpha) * (count + 1) - 1e-9) / (count + 1), abs=0.007)
    assert coverage == pytest.approx(1 - alpha, abs=0.01)


def test_too_few_examples_give_infinite_intervals():
    calibration = Calibration.fit(*predictions(8))
    assert calibration.conformal_factor(0.1).isinf().all()
    assert Calibration.fit(*predictions(9)).conformal_factor(0.1).isfinite().all()
    with pytest.raises(ValueError, match=r"^alpha must be between 0 and 1, such as 0.05, got 1"):
        calibration.conformal_factor(1)
    with pytest.raises(ValueError, match=r"^y must be of one calibration example or more, got none"):
        Calibration.fit(*predictions(0))


def test_the_accept_rule_bounds_the_rate_of_large_errors():
    # Half of the examples are easy (std 0.1) and half hard (std 2): errors above 1 are mistakes.
    generator = torch.Generator().manual_seed(2)
    held = 0
    for _ in range(40):
        stds = torch.where(torch.rand(2400, 1, 1, generator=generator) < 0.5, 0.1, 2.0).double()
        y = stds[:, 0] * torch.randn(2400, 1, generator=generator, dtype=torch.float64)
        mixture = Mixture(torch.zeros_like(stds), stds)
        calibration = Calibration.fit(mixture[:400], y[:400])
        rule = calibration.accept_rule(0.05, 1.0, torch.ones(1))
        assert rule.coverage == pytest.approx(0.5, abs=0.1)
        accepted = -stds[400:, 0, 0] >= rule.threshold
        held += (y[400:][accepted].abs() > 1).double().mean().item() <= 0.05
    assert held >= 38  # of 40, at 95 % confidence
    assert math.isinf(calibration.accept_rule(0.001, 1.0, torch.ones(1)).threshold)
    with pytest.raises(ValueError, match=r"^target_error must be above 0"):
        calibration.accept_rule(0.05, 0.0, torch.ones(1))


def decisions(likelihood, summary, files, *rates):
    return likelihood.predictions(summary, (), likelihood.thresholds(*rates), files).rows()


def test_rows_of_predict_and_the_rules_in_words():
    likelihood = GaussianLikelihood(heteroscedastic=True).in_units(Units(("angle",), (10.0,), (4.0,)))
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(6, 300, 2, generator=generator, dtype=torch.float64)
    outputs = torch.cat([0.2 * outputs[..., :1], outputs[..., 1:]], -1)
    outputs[:, ::2, 1] -= 4  # every other example is an easy one
    summary = likelihood.summary(outputs)
    noise = torch.randn(300, 1, generator=generator, dtype=torch.float64)
    y = summary["mean"] + Mixture.of(summary).std() * noise
    calibration = likelihood.calibrate(summary, y)
    rows = decisions(likelihood, summary, [str(n) for n in range(300)], calibration, 0.1, 0.1, 6.0)
    mixture = Mixture.of(summary)
    for name, values in (("mean", mixture.mean()), ("low", mixture.quantile(0.05)), ("high", mixture.quantile(0.95))):
        assert rows[7][name] == pytest.approx(values[7, 0].item(), rel=1e-5)
    total = rows[7]["aleatoric_std"] ** 2 + rows[7]["epistemic_std"] ** 2
    assert total == pytest.approx(rows[7]["std"] ** 2, rel=1e-4)
    half = (rows[7]["conformal_high"] - rows[7]["conformal_low"]) / 2
    assert half == pytest.approx(calibration.conformal_factor(0.1).item() * rows[7]["std"], rel=1e-4)
    accepted = [row for row in rows if row["decision"] == "accept"]
    assert 0 < len(accepted) < 300
    assert max(row["std"] for row in accepted) <= min(row["std"] for row in rows if row["decision"] == "abstain")
    words = likelihood.decision_rule(calibration, 0.1, 0.1, 6.0)
    assert "Conformal intervals miss at most 10 % of targets like those of the 300 calibration examples" in words
    assert "Accepted is what has a predictive standard deviation of" in words
    assert "--target_error" in likelihood.decision_rule(calibration, 0.2, 0.1)
    assert "All abstain: 300 calibration examples" in likelihood.decision_rule(calibration, 0.0001, 0.1, 6.0)
    few = likelihood.calibrate({name: values[:5] for name, values in summary.items()}, y[:5])
    assert "5 calibration examples are too few" in likelihood.decision_rule(few, 0.2, 0.1)
    assert "holds no calibration" in likelihood.decision_rule(None, 0.2, 0.1)
    assert likelihood.caveats(summary, y, few, ()) == ["calibrated on only 5 examples"]
    assert set(decisions(likelihood, summary, ["a"] * 300, None, 0.2, 0.1)[0]) == {
        *("file", "mean", "aleatoric_std", "epistemic_std", "std", "low", "high")
    }


def test_several_targets_have_their_names_before_the_columns():
    likelihood = GaussianLikelihood(2).in_units(Units(("a", "b"), (0.0, 5.0), (1.0, 2.0)))
    summary = likelihood.summary(torch.zeros(1, 1, 4))
    row = decisions(likelihood, summary, ["x"], None, 0.1, 0.1)[0]
    assert (row["a mean"], row["b mean"], row["b std"]) == (0, 5, 2)
    calibration = likelihood.calibrate(likelihood.predictive(torch.zeros(1, 50, 4)), torch.randn(50, 2))
    assert "standard deviations of each target" in likelihood.decision_rule(calibration, 0.5, 0.1, 50.0)
