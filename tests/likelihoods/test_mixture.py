"""Mixtures of normal and Student-t components against scipy: densities, integrals, quantiles."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import beta

from bnn_lightning.likelihoods.regression.mixture import Mixture

SAMPLES, EXAMPLES, TARGETS = 4, 3, 2


def mixture(kind, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (EXAMPLES, SAMPLES, TARGETS)
    locations = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    scales = 0.3 + torch.rand(shape, generator=generator, dtype=torch.float64)
    dfs = 2.5 + 6 * torch.rand(shape, generator=generator, dtype=torch.float64) if kind == "t" else None
    y = torch.randn(EXAMPLES, TARGETS, generator=generator, dtype=torch.float64)
    return Mixture(locations, scales, dfs), y


def scipys(of, example, target):
    """The components of an example's target by scipy."""
    parts = of.locations[example, :, target], of.scales[example, :, target]
    locations, scales = (part.numpy() for part in parts)
    return stats.norm(locations, scales) if of.dfs is None else stats.t(of.dfs[example, :, target], locations, scales)


def integral(function, of, example, target):
    """Over the line, cut at the components, where there are peaks."""
    cuts = sorted(of.locations[example, :, target].tolist())
    ends = [-np.inf, *cuts, np.inf]
    return sum(quad(function, low, high, limit=500, epsabs=1e-11)[0] for low, high in pairwise(ends))


KINDS = pytest.mark.parametrize("kind", ["normal", "t"])


@KINDS
def test_the_nll_is_that_of_the_mean_density(kind):
    of, y = mixture(kind)
    for example in range(EXAMPLES):
        joint = np.ones(SAMPLES)
        for target in range(TARGETS):
            density = scipys(of, example, target).pdf(y[example, target].item())
            joint *= density
            assert of.target_log_prob(y)[example, target].item() == pytest.approx(np.log(density.mean()), rel=1e-10)
        assert of.log_prob(y)[example].item() == pytest.approx(np.log(joint.mean()), rel=1e-10)


@KINDS
def test_the_density_integrates_to_one_and_to_the_mean_and_variance_of_both_parts(kind):
    of, _ = mixture(kind)
    aleatoric, epistemic = of.variances()
    for example in range(EXAMPLES):
        for target in range(TARGETS):
            components = scipys(of, example, target)

            def moment(power, components=components, place=(example, target)):
                return integral(lambda x: x**power * components.pdf(x).mean(), of, *place)

            mean = moment(1)
            assert moment(0) == pytest.approx(1, abs=1e-8)
            assert of.mean()[example, target].item() == pytest.approx(mean, abs=1e-6)
            total = (aleatoric + epistemic)[example, target].item()
            # Tails of Student's t with few degrees of freedom are cut by the quadrature.
            assert total == pytest.approx(moment(2) - mean**2, rel=1e-8 if kind == "normal" else 1e-3)
            assert aleatoric[example, target].item() == pytest.approx(components.var().mean(), rel=1e-12)
            assert epistemic[example, target].item() == pytest.approx(components.mean().var(), rel=1e-12)


def test_one_sample_has_no_epistemic_part():
    of, _ = mixture("normal")
    assert of.locations[:, :1].shape[1] == 1
    assert (Mixture(of.locations[:, :1], of.scales[:, :1]).variances()[1] == 0).all()


@KINDS
def test_the_crps_is_the_integral_of_the_squared_gap(kind):
    of, y = mixture(kind)
    crps = of.crps(y)
    for example in range(EXAMPLES):
        for target in range(TARGETS):
            components, truth = scipys(of, example, target), y[example, target].item()

            def squared_gap(x, components=components, truth=truth):
                return (components.cdf(x).mean() - (x >= truth)) ** 2

            cuts = sorted([truth, *of.locations[example, :, target].tolist()])
            ends = [-np.inf, *cuts, np.inf]
            parts = pairwise(ends)
            expected = sum(quad(squared_gap, low, high, limit=500, epsabs=1e-11)[0] for low, high in parts)
            assert crps[example, target].item() == pytest.approx(expected, rel=1e-7 if kind == "normal" else 1e-4)


@pytest.mark.parametrize("df", [2.000001, 2.01, 2.5, 30])
def test_the_crps_of_one_student_t_is_its_closed_form_also_where_the_variance_is_hardly_finite(df):
    scale, y = 3.0, 1.5
    of = Mixture(*(torch.full((1, 1, 1), value, dtype=torch.float64) for value in (0.0, scale, df)))
    # Jordan, Krueger & Lerch 2019 (arXiv:1709.04743)
    z, law = y / scale, stats.t(df)
    half_pair_distance = 2 * df**0.5 / (df - 1) * beta(0.5, df - 0.5) / beta(0.5, df / 2) ** 2
    distance = z * (2 * law.cdf(z) - 1) + 2 * law.pdf(z) * (df + z**2) / (df - 1)
    expected = scale * (distance - half_pair_distance)
    assert of.crps(torch.tensor([[y]], dtype=torch.float64)).item() == pytest.approx(expected, rel=3e-3)


def test_the_crps_is_the_same_in_chunks(monkeypatch):
    of, y = mixture("normal")
    whole = of.crps(y)
    monkeypatch.setattr("bnn_lightning.likelihoods.regression.mixture._PAIRS", 1)
    torch.testing.assert_close(of.crps(y), whole)


@KINDS
def test_quantiles_invert_the_distribution_function(kind):
    of, _ = mixture(kind)
    for level in (0.025, 0.5, 0.9):
        quantile = of.quantile(level)
        for example in range(EXAMPLES):
            for target in range(TARGETS):
                below = scipys(of, example, target).cdf(quantile[example, target].item()).mean()
                assert below == pytest.approx(level, abs=1e-9)
    single = Mixture(of.locations[:, :1], of.scales[:, :1], None if of.dfs is None else of.dfs[:, :1])
    expected = [[scipys(single, e, t).ppf(0.9)[0] for t in range(TARGETS)] for e in range(EXAMPLES)]
    torch.testing.assert_close(single.quantile(0.9), torch.tensor(expected, dtype=torch.float64))


@KINDS
def test_scaling_multiplies_the_standard_deviation_and_keeps_the_mean(kind):
    of, _ = mixture(kind)
    factor = torch.tensor([0.5, 3.0], dtype=torch.float64)
    scaled = of.scaled(factor)
    torch.testing.assert_close(scaled.mean(), of.mean())
    torch.testing.assert_close(scaled.std(), factor * of.std())
