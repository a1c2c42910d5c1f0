"""Likelihoods of numbers: units, learnt noise, beta-NLL, scores, what is refused."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn
from torch.func import functional_call

from bnn_lightning import BBB, Categorical, GaussianLikelihood, Sampler, StudentT, Units, bayesianize, kl, to_plain
from bnn_lightning.likelihoods.regression.mixture import Mixture
from bnn_lightning.likelihoods.regression.noise import with_learnt_noise

UNITS = Units(("force", "length"), (100.0, -3.0), (20.0, 0.5))


def random_outputs(columns, samples=3, batch=50):
    return torch.randn(samples, batch, columns, dtype=torch.float64)


def test_everything_is_in_the_units_of_the_labels():
    plain, ours = GaussianLikelihood(2, True), GaussianLikelihood(2, True).in_units(UNITS)
    outputs, z = random_outputs(4), torch.randn(50, 2, dtype=torch.float64)
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (UNITS.mean, UNITS.std))
    y = mean + std * z
    assert ours.nll(outputs, y).item() == pytest.approx(plain.nll(outputs, z).item() + math.log(20 * 0.5), rel=1e-9)
    summary, standardised = ours.summary(outputs), plain.summary(outputs)
    torch.testing.assert_close(summary["mean"], mean + std * standardised["mean"])
    for part in ("aleatoric", "epistemic"):
        torch.testing.assert_close(summary[part], std * standardised[part])
    torch.testing.assert_close(ours.example_score(summary, y), plain.example_score(standardised, z))
    torch.testing.assert_close(ours.ood_scores(summary), plain.ood_scores(standardised))
    # The gradients in the outputs do not know the units.
    gradients = [
        torch.autograd.grad(likelihood.nll(leaf, labels), leaf)[0]
        for likelihood, labels in ((plain, z), (ours, y))
        for leaf in [outputs.clone().requires_grad_()]
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(2, True), StudentT(2, True, None, 5.0), StudentT(2, True)])
def test_the_nll_is_the_mean_over_samples_of_the_mixtures_of_one(likelihood):
    outputs = random_outputs(6 if likelihood == StudentT(2, True) else 4)
    y = torch.randn(50, 2, dtype=torch.float64)
    alone = [-likelihood.log_prob(likelihood.predictive(sample.unsqueeze(0)), y).mean() for sample in outputs]
    torch.testing.assert_close(likelihood.nll(outputs, y), torch.stack(alone).mean())


def test_the_guess_is_a_normal_distribution():
    y = torch.randn(200_000, 1) * 3 + 7
    likelihood = GaussianLikelihood().in_units(Units(("y",), (7.0,), (3.0,)))
    guess = likelihood.uninformed(1)
    outputs = torch.zeros(1, len(y), 2)
    assert likelihood.nll(outputs, y).item() == pytest.approx(guess.nll, abs=0.01)
    assert likelihood.training_score(outputs, y).item() == pytest.approx(guess.score, abs=0.02)


def layers():
    return nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)


class Own(nn.Module):
    """A network that is no chain."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.fc2(self.fc1(x).relu())


class InOrder(nn.Sequential):
    """Has a forward pass of its own, which calls all parts that it is given."""

    def forward(self, x):
        for part in self:
            x = part(x)
        return x


@pytest.mark.parametrize("make", [Own, lambda: nn.Sequential(*layers()), lambda: InOrder(*layers())])
def test_learnt_noise_is_a_parameter_of_the_network_like_others(make):
    net = make()
    names = set(net.state_dict())
    likelihood = StudentT()
    prepared = likelihood.prepare(net)
    assert set(net.state_dict()) == names  # a copy is made
    assert set(prepared.state_dict()) == names | {"learnt_noise.constants"}
    assert likelihood.prepare(prepared) is prepared
    x = torch.randn(5, 3)
    torch.testing.assert_close(prepared(x), torch.cat([net(x), torch.tensor([[0, math.log(8)]]).expand(5, -1)], 1))
    bayesian = bayesianize(prepared, BBB())
    for converted in (bayesian, copy.deepcopy(bayesian), to_plain(bayesian)):
        assert converted(x).shape == (5, 3)
    assert Sampler(bayesian, 4)(x).shape == (4, 5, 3)
    other = {"learnt_noise.constants": torch.tensor([1.0, 2.0])}
    assert functional_call(prepared, other, (x,))[0, 1:].tolist() == [1.0, 2.0]


def test_a_plain_loop_learns_the_noise_and_its_tails():
    # y = 2 x + 0.3 t_4 noise: the standard deviation and the degrees of freedom are those of the maximum likelihood.
    generator = np.random.default_rng(0)
    x = torch.tensor(generator.normal(size=(4000, 1)), dtype=torch.float32)
    y = 2 * x + 0.3 * torch.tensor(generator.standard_t(4, size=(4000, 1)), dtype=torch.float32)
    for likelihood, expected in ((GaussianLikelihood(), 0.3 * 2**0.5), (StudentT(), 0.3)):
        net = likelihood.prepare(nn.Linear(1, 1))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
        for _ in range(400):
            loss = likelihood.nll(net(x).unsqueeze(0), y) + kl(net) / len(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        mixture = Mixture.of(likelihood.predictive(net(x[:1]).unsqueeze(0)))
        assert mixture.scales.item() == pytest.approx(expected, rel=0.06)
        if mixture.dfs is not None:
            assert mixture.dfs.item() == pytest.approx(4, rel=0.2)


def test_a_given_sigma_is_in_the_units_of_the_labels_and_appends_nothing():
    likelihood = GaussianLikelihood(sigma=5.0).in_units(Units(("y",), (0.0,), (20.0,)))
    net = nn.Linear(1, 1)
    assert likelihood.prepare(net) is net
    assert Mixture.of(likelihood.predictive(torch.zeros(2, 3, 1))).scales.unique().tolist() == [5.0]


def test_the_gradient_of_beta_nll_is_the_papers():
    # Seitzer et al. 2022, eq. 8 and 9: (mean - y) / variance^(1 - beta), and by the variance
    # (variance - (y - mean)^2) / (2 variance^(2 - beta)).
    beta = 0.5
    outputs = random_outputs(2, samples=1, batch=1).requires_grad_()
    y = torch.randn(1, 1, dtype=torch.float64)
    loss = GaussianLikelihood(heteroscedastic=True, beta=beta).for_training().nll(outputs, y)
    gradient = torch.autograd.grad(loss, outputs)[0].flatten()
    mean, log_variance = outputs.detach().flatten()
    variance = log_variance.exp()
    by_variance = (variance - (y - mean).square()) / (2 * variance ** (2 - beta))
    expected = torch.cat([((mean - y) / variance ** (1 - beta)).flatten(), (by_variance * variance).flatten()])
    torch.testing.assert_close(gradient, expected)
    assert GaussianLikelihood(heteroscedastic=True, beta=beta).departures == ["beta-NLL 0.5"]
    assert GaussianLikelihood().for_training() == GaussianLikelihood()


def test_scores_are_sklearns_and_intervals_are_counted():
    likelihood, y = GaussianLikelihood(2, True), torch.randn(300, 2, dtype=torch.float64)
    outputs = random_outputs(4, samples=5, batch=300)
    predictive = likelihood.predictive(outputs)
    metrics = likelihood.metrics(predictive, y)
    mixture = Mixture.of(predictive)
    mean = mixture.mean().numpy()
    assert metrics["rmse"] == pytest.approx(np.sqrt(((mean - y.numpy()) ** 2).mean()))
    assert metrics["mae"] == pytest.approx(mean_absolute_error(y, mean))
    assert metrics["r2"] == pytest.approx(r2_score(y, mean))
    for coverage in (50, 80, 90, 95):
        low, high = mixture.interval(coverage / 100)
        assert metrics[f"coverage_{coverage}"] == pytest.approx(((low <= y) & (y <= high)).double().mean().item())
        assert metrics[f"width_{coverage}"] == pytest.approx((high - low).mean().item())
    levels = [level / 20 for level in range(1, 20)]
    gaps = [((y <= mixture.quantile(level)).double().mean(0) - level).abs().mean().item() for level in levels]
    assert metrics["calibration_error"] == pytest.approx(np.mean(gaps))
    rows = likelihood.target_rows(predictive, y)
    for target, row in enumerate(rows):
        assert row["rmse"] == pytest.approx(root_mean_squared_error(y[:, target], mean[:, target]))
        assert row["crps"] == pytest.approx(mixture.crps(y)[:, target].mean().item())


def test_bootstrap_metrics_are_those_of_the_chosen_examples_and_draws():
    likelihood, y = StudentT(df=4.0), torch.randn(40, 1, dtype=torch.float64)
    outputs = random_outputs(2, samples=3, batch=40)
    predictive = likelihood.predictive(outputs)
    index = torch.randint(40, (40,))
    resampled = likelihood.metrics({name: values[index] for name, values in predictive.items()}, y[index])
    assert likelihood.metrics_of_examples(predictive, y)(index) == pytest.approx(resampled)
    counts = torch.tensor([2, 0, 1])
    of_draws = likelihood.metrics_of_draws(outputs, y)(counts)
    expected = likelihood.metrics(likelihood.predictive(outputs[[0, 0, 2]]), y)
    assert of_draws == pytest.approx({name: expected[name] for name in of_draws})
    assert set(expected) - set(of_draws) == {"crps", "width_50", "width_80", "width_90", "width_95"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"targets": 0}, "targets must be 1 or more, got 0."),
        ({"sigma": -1.0}, "sigma must be a positive number, got -1.0."),
        ({"sigma": 1.0, "heteroscedastic": True}, "sigma must be null where heteroscedastic is true"),
        ({"beta": 2.0, "heteroscedastic": True}, "beta must be from 0 to 1, such as 0.5, got 2.0."),
        ({"beta": 0.5}, "beta must be 0 unless heteroscedastic is true, got 0.5."),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        GaussianLikelihood(**settings)


@pytest.mark.parametrize(
    ("columns", "y", "sentence"),
    [
        (2, torch.zeros(4, dtype=torch.int64), r"labels must be float numbers \(batch, 1\), got int64; for classes"),
        (2, torch.zeros(4), r"labels must be \(batch, 1\), got the shape \(4,\); use y.unsqueeze\(1\)"),
        (2, torch.zeros(4, 3), r"labels must be \(batch, 1\), got the shape \(4, 3\); give the likelihood"),
        (2, torch.tensor([[1.0], [math.nan]]), "labels must be finite, got nan or inf in 1 of 2 examples"),
        (1, torch.zeros(4, 1), r"network must have 1 outputs for 1 targets, and 2 with .* of shape \(4, 1\)"),
    ],
)
def test_outputs_and_labels_that_do_not_fit_are_refused(columns, y, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        GaussianLikelihood().check(torch.zeros(4, columns), y, None)


def test_labels_and_outputs_of_another_shape_are_not_broadcast():
    likelihood, outputs = GaussianLikelihood(sigma=1.0), torch.zeros(2, 50, 1)
    predictive, y = likelihood.predictive(outputs), torch.zeros(50)
    for asked in (
        lambda: likelihood.nll(outputs, y),
        lambda: likelihood.log_prob(predictive, y),
        lambda: likelihood.example_score(predictive, y),
        lambda: likelihood.metrics(predictive, y),
        lambda: likelihood.calibrate(predictive, y),
    ):
        with pytest.raises(
            ValueError, match=r"^labels must be \(batch, 1\), got the shape \(50,\); use y.unsqueeze\(1\)"
        ):
            asked()
    for learning in (GaussianLikelihood(), GaussianLikelihood(heteroscedastic=True), StudentT(df=4.0)):
        with pytest.raises(ValueError, match=r"^outputs must have 2 columns, got 1; likelihood.prepare\(network\)"):
            learning.nll(outputs, y.unsqueeze(1))


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), StudentT()])
def test_a_network_that_is_one_layer_learns_its_noise(likelihood):
    plain = nn.Linear(3, 1)
    for net in (likelihood.prepare(plain), bayesianize(likelihood.prepare(plain), BBB())):
        outputs = net(torch.randn(5, 3))
        assert outputs.shape == (5, 2 if isinstance(likelihood, GaussianLikelihood) else 3)
        likelihood.nll(outputs.unsqueeze(0), torch.zeros(5, 1)).backward()
        assert net.learnt_noise.constants.grad is not None
    assert likelihood.prepare(net) is net


@pytest.mark.parametrize("df", [2.5, 30.0, 99.0, 101.0, 3e3, 1e5, 1e7])
def test_students_density_is_scipys_for_any_degrees_of_freedom(df):
    likelihood, z = StudentT(scale=1.0, df=df), torch.tensor([[0.0], [0.5], [3.0]])
    ours = likelihood.log_prob(likelihood.predictive(torch.zeros(1, 3, 1)), z)
    expected = stats.t.logpdf(z.squeeze(1).double(), df)
    assert ours.tolist() == pytest.approx(expected.tolist(), abs=2e-5)  # lgamma(50) is 145, in float32 to 1.5e-5
    with pytest.raises(ValueError, match=r"^df must be a number above 2, .* got inf; Gaussian has infinitely many"):
        StudentT(df=math.inf)


def test_one_row_has_no_r2():
    likelihood = GaussianLikelihood(sigma=1.0)
    assert math.isnan(likelihood.metrics(likelihood.predictive(torch.zeros(2, 1, 1)), torch.ones(1, 1))["r2"])


def test_df_and_units_and_weights_are_checked():
    with pytest.raises(ValueError, match=r"^df must be a number above 2, where the variance is finite, got 2.0"):
        StudentT(df=2.0)
    with pytest.raises(ValueError, match=r"^targets must be 2, as many as the data have, got 1"):
        GaussianLikelihood().in_units(UNITS)
    with pytest.raises(ValueError, match=r"^class_weights must be null with Gaussian"):
        GaussianLikelihood().for_training(torch.ones(2))
    assert Categorical().prepare(net := nn.Linear(1, 1)) is net


@pytest.mark.parametrize("heteroscedastic", [False, True])
@pytest.mark.parametrize("df", [None, 5.0])
def test_the_hessian_in_the_outputs_is_the_mean_over_labels_of_autograds(heteroscedastic, df):
    # Labels at the quantiles of p(y | outputs): the mean over them is an integral, of which the tails are cut.
    settings = {"heteroscedastic": heteroscedastic} | ({} if heteroscedastic else {"scale" if df else "sigma": 0.7})
    likelihood = StudentT(df=df, **settings) if df else GaussianLikelihood(**settings)
    outputs = torch.tensor([[0.3, *([0.4] if heteroscedastic else [])]], dtype=torch.float64)
    scale = math.exp(0.2) if heteroscedastic else 0.7
    levels = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    z = stats.t.ppf(levels, df) if df else stats.norm.ppf(levels)
    labels = 0.3 + scale * torch.as_tensor(z).unsqueeze(1)

    def mean_nll(outputs):
        return likelihood.nll(outputs.expand(1, len(labels), -1), labels)

    expected = torch.autograd.functional.hessian(mean_nll, outputs).squeeze((0, 2))
    ours = likelihood.output_hessian(outputs, labels[:1])[0]
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-3)


def test_learnt_noise_keeps_float32_beside_outputs_in_half_precision():
    net = with_learnt_noise(nn.Linear(3, 1), torch.tensor([-5.31]))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(torch.randn(4, 3))
    assert outputs[:, 1].tolist() == pytest.approx([-5.31] * 4, rel=1e-6)
