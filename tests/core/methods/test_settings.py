"""Settings of methods: what they start from, and the sentences that refuse one."""

import math

import pytest
import torch
from torch import nn

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.methods import (
    BBB,
    LRT,
    GaussianMethod,
    HierarchicalB,
    MCDropout,
    Sparse,
    VariationalA,
    VariationalB,
)
from bnn_lightning.core.priors import LearntScale, ScaleMixture


def test_the_references_dictionary_of_priors_is_understood():
    # PyTorch-BayesianCNN's dictionary of priors: its keys, and its values where there is none.
    assert hash(LRT(rho_init=[-5, 0.1], mu_init=[0, 0.1])) == hash(LRT(rho_init=(-5, 0.1), mu_init=(0, 0.1)))
    with pytest.raises(ValueError, match=r"^rho_init must be \(mean, std\) with std >= 0, .* got -5\.$"):
        LRT(rho_init=-5)
    assert BBB.from_priors(None) == BBB(prior_mu=0.0, prior_sigma=0.1, mu_init=(0.0, 0.1), rho_init=(-3.0, 0.1))
    priors = {"prior_sigma": 0.3, "posterior_rho_initial": (-5, 0.2)}
    assert LRT.from_priors(priors) == LRT(prior_sigma=0.3, mu_init=(0.0, 0.1), rho_init=(-5, 0.2))
    with pytest.raises(ValueError, match=r"^priors has the unknown key 'prior_rho'; known keys: prior_mu, prior_sigma"):
        LRT.from_priors({"prior_rho": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior_sigma": -0.1}, "prior_sigma must be a positive standard deviation such as 0.1, got -0.1."),
        ({"prior_sigma": float("nan")}, "prior_sigma must be a positive standard deviation such as 0.1, got nan."),
        ({"prior_mu": float("inf")}, "prior_mu must be a finite number such as 0, got inf."),
        ({"rho_init": (1, -1)}, r"rho_init must be (mean, std) with std >= 0, such as (-5, 0.1), got (1, -1)."),
        ({"mu_init": (1,)}, r"mu_init must be (mean, std) with std >= 0, such as (-5, 0.1), or he, got (1,)."),
    ],
)
def test_gaussian_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        BBB(**settings)
    assert str(error.value) == message


def test_means_are_kept_or_drawn_as_the_method_says():
    layer = nn.Linear(200, 200)
    kept = GaussianMethod.weight(BBB(), layer.weight)
    assert torch.equal(kept.mu, layer.weight)
    assert kept.mu is not layer.weight
    drawn = GaussianMethod.weight(BBB(mu_init=(0.5, 0.1)), layer.weight)
    assert drawn.mu.mean().item() == pytest.approx(0.5, abs=5 * 0.1 / 200)
    assert drawn.mu.std().item() == pytest.approx(0.1, rel=5 / 200)
    assert drawn.rho.mean().item() == pytest.approx(-5, abs=5 * 0.1 / 200)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariationalB(alpha="outputs"), "alpha must be one of weight, output, layer, got 'outputs'."),
        (lambda: VariationalA(alpha="pixel"), "alpha must be one of feature, channel, got 'pixel'."),
        (
            lambda: Sparse(parametrisation="log_sig2"),
            "parametrisation must be one of log_alpha, log_sigma2, log_sigma, ",
        ),
        (lambda: HierarchicalB(noise_on="b"), "noise_on must be one of weights, outputs, got 'b'."),
        (lambda: HierarchicalB(p=1e-6), "p must be an initial dropout rate from 0.0004 to 0.9996, got 1e-06."),
        (lambda: VariationalA(p=0.6), "p must be at most 0.5 for VariationalA, whose alpha ends at 1, got 0.6."),
        (lambda: Sparse(sigma_init=0.0), "sigma_init must be a positive standard deviation such as 0.0067, got 0.0."),
        (lambda: MCDropout(p=1.0), "p must be a dropout rate from 0 to below 1, got 1.0."),
        (lambda: BBB(moped_delta=-1.0), "moped_delta must be a number from 0 up, got -1.0."),
        (
            lambda: BBB(moped_delta=0.1, prior=ScaleMixture()),
            "moped_delta must be 0 with ScaleMixture, which has no mean for each weight, got 0.1.",
        ),
        (
            lambda: LRT(prior=ScaleMixture()),
            "prior must be one whose KL is exact, such as Normal or LearntScale, for LRT, which draws no",
        ),
        (
            lambda: Sparse(prune_in_training=True, noise_on="outputs"),
            "prune_in_training must be false for multiplicative",
        ),
    ],
)
def test_settings_of_the_other_methods_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match="must be") as error:
        make()
    assert str(error.value).startswith(message)


def test_only_methods_with_a_normal_prior_take_it_from_a_trained_twin():
    assert LRT().pretrained().moped_delta == 0.1
    assert BBB(prior=LearntScale()).pretrained().moped_delta == 0
    assert Sparse().pretrained() == Sparse()


@pytest.mark.parametrize(
    ("layer", "fan_in"), [(nn.Linear(400, 900), 400), (nn.Conv2d(8, 300, 3), 72), (nn.ConvTranspose2d(300, 8, 3), 2700)]
)
def test_he_normal_means_keep_the_scale_of_activations_behind_a_relu(layer, fan_in):
    torch.manual_seed(0)
    net = bayesianize(layer, BBB(mu_init="he"))
    weight = net.weight.mu.detach()
    # The std of a sample variance of n normal numbers is sqrt(2 / n) of it.
    assert weight.var().item() == pytest.approx(2 / fan_in, rel=5 * math.sqrt(2 / weight.numel()))
    assert torch.equal(net.bias.mu, layer.bias)
