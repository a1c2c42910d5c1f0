"""Laplace: curvature, posterior and evidence against autograd and numpy, where the last layer is all there is."""

import numpy as np
import pytest
import torch
from torch import nn

from bnn_lightning import BBB, BayesianModule, Categorical, GaussianLikelihood, Laplace, draw, random_tensors
from bnn_lightning.inference import Step
from bnn_lightning.inference.laplace import best_precision
from bnn_lightning.inference.last_layer import outputs_and_features
from bnn_lightning.likelihoods import Likelihood
from tests.training.helpers import digits, fit

F64 = torch.float64
INPUTS, CLASSES, EXAMPLES = 4, 3, 40


def examples(count=EXAMPLES):
    x = torch.randn(count, INPUTS, dtype=F64)
    return x, torch.randint(0, CLASSES, (count,))


def fitted(batches, likelihood=Categorical(), bias=True, **settings):  # noqa: B008
    """Logistic regression with random weights, after after_fit."""
    inference = Laplace(**settings)
    net = inference.prepare(nn.Sequential(nn.Linear(INPUTS, CLASSES, bias=bias, dtype=F64)), None, "*")
    inference.after_fit(net, batches, likelihood)
    return net


def flat_mean(net):
    """Weight and bias as a matrix [W | b], row by row."""
    tensors = dict(random_tensors(net))
    columns = [tensors["0.weight"].mean]
    if "0.bias" in tensors:
        columns.append(tensors["0.bias"].mean.unsqueeze(1))
    return torch.cat(columns, 1).detach().flatten()


def hessian_of_nll(net, x, y):
    """Of the summed nll, at the means, by autograd."""
    mean = flat_mean(net)
    columns = len(mean) // CLASSES

    def nll(flat):
        matrix = flat.view(CLASSES, columns)
        logits = x @ matrix[:, :INPUTS].T
        if columns > INPUTS:
            logits = logits + matrix[:, INPUTS]
        return nn.functional.cross_entropy(logits, y, reduction="sum")

    return torch.autograd.functional.hessian(nll, mean), nll(mean)


def covariance(net):
    """Of the draws of [W | b], row by row, from the posterior's parts."""
    tensors = dict(random_tensors(net))
    weight, bias = tensors["0.weight"], tensors.get("0.bias")
    size = weight.noise().numel()
    columns = []
    with torch.no_grad():
        for index in range(size):  # the draw that belongs to each number of the shared noise
            noise = torch.zeros(size, dtype=F64)
            noise[index] = 1
            noise = noise.view_as(weight.noise())
            parts = [weight.given(noise) - weight.mean]
            if bias is not None:
                parts.append((bias.given(noise) - bias.mean).unsqueeze(1))
            columns.append(torch.cat(parts, 1).flatten())
    factor = torch.stack(columns, 1)
    return factor @ factor.T


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_full_is_the_inverse_of_the_hessian_of_logistic_regression(bias, temperature):
    x, y = examples()
    batches = list(zip(x.split(7), y.split(7), strict=True))
    net = fitted(batches, bias=bias, prior_precision=0.7, temperature=temperature)
    hessian, _ = hessian_of_nll(net, x, y)
    expected = temperature * torch.linalg.inv(hessian + 0.7 * torch.eye(len(hessian), dtype=F64))
    torch.testing.assert_close(covariance(net), expected, rtol=1e-8, atol=1e-10)
    variances = expected.diagonal().view(CLASSES, -1)
    torch.testing.assert_close(dict(random_tensors(net))["0.weight"].variance, variances[:, :INPUTS])


def test_the_log_marginal_likelihood_is_numpys_and_its_precision_the_best():
    x, y = examples()
    net = fitted([(x, y)])
    found = Laplace().findings(net)
    hessian, nll = hessian_of_nll(net, x, y)
    eigenvalues, mean = np.linalg.eigvalsh(hessian.numpy()), flat_mean(net).numpy()

    def evidence(precision):
        # Bishop 2006, eq. 4.137: log likelihood + log prior + d/2 log 2 pi - 1/2 log det(H + delta I).
        log_prior = 0.5 * len(mean) * np.log(precision / (2 * np.pi)) - 0.5 * precision * mean @ mean
        determinant = np.linalg.slogdet(hessian.numpy() + precision * np.eye(len(mean)))[1]
        return -nll.item() + log_prior + 0.5 * len(mean) * np.log(2 * np.pi) - 0.5 * determinant

    assert found["log marginal likelihood"] == pytest.approx(evidence(found["prior precision"]), rel=1e-9)
    assert found["prior precision"] == pytest.approx(
        best_precision(torch.from_numpy(eigenvalues).clamp_min(0), mean @ mean), rel=1e-9
    )
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert evidence(factor * found["prior precision"]) < found["log marginal likelihood"]
    fixed = Laplace(prior_precision=2.5)
    net = fitted([(x, y)], prior_precision=2.5)
    hessian, nll = hessian_of_nll(net, x, y)
    mean = flat_mean(net).numpy()
    assert fixed.findings(net)["log marginal likelihood"] == pytest.approx(evidence(2.5), rel=1e-9)


def test_a_kronecker_product_is_exact_for_one_example_and_for_equal_ones():
    x, y = examples(1)
    for batches in ([(x, y)], [(x.expand(5, -1), y.expand(5)), (x.expand(2, -1), y.expand(2))]):
        torch.manual_seed(1)
        kron = fitted(batches, structure="kron", prior_precision=0.7)
        torch.manual_seed(1)
        full = fitted(batches, prior_precision=0.7)
        torch.testing.assert_close(covariance(kron), covariance(full), rtol=1e-8, atol=1e-10)
        names = ("0.prior_precision", "0.log_marginal_likelihood")
        assert [kron.get_buffer(name).item() for name in names] == pytest.approx(
            [full.get_buffer(name).item() for name in names]
        )


def test_a_diagonal_has_the_diagonal_of_the_hessian():
    x, y = examples()
    net = fitted([(x, y)], structure="diag", prior_precision=0.7)
    hessian, _ = hessian_of_nll(net, x, y)
    variances = (1 / (hessian.diagonal() + 0.7)).view(CLASSES, -1)
    tensors = dict(random_tensors(net))
    torch.testing.assert_close(tensors["0.weight"].variance, variances[:, :INPUTS])
    torch.testing.assert_close(tensors["0.bias"].variance, variances[:, INPUTS])


@pytest.mark.parametrize(
    ("smoothing", "weights"), [(0.0, None), (0.2, None), (0.1, torch.tensor([0.5, 2.0, 3.0], dtype=F64))]
)
def test_the_hessian_in_the_outputs_is_that_of_the_training_loss(smoothing, weights):
    likelihood = Categorical(label_smoothing=smoothing).for_training(weights)
    outputs, y = torch.randn(5, CLASSES, dtype=F64), torch.randint(0, CLASSES, (5,))
    found = likelihood.output_hessian(outputs, y)
    for index in range(5):

        def nll(logits, index=index):
            return likelihood.nll(logits.view(1, 1, -1), y[index : index + 1])

        expected = torch.autograd.functional.hessian(nll, outputs[index])
        torch.testing.assert_close(found[index], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_a_loss_that_is_no_density_has_no_marginal_likelihood(beta):
    likelihood = GaussianLikelihood(heteroscedastic=True, beta=beta).for_training()
    x, y = torch.randn(30, INPUTS, dtype=F64), torch.randn(30, 1, dtype=F64)
    inference = Laplace(prior_precision=1.0)
    net = inference.prepare(nn.Sequential(nn.Linear(INPUTS, 2, dtype=F64)), None, "*")
    inference.after_fit(net, [(x, y)], likelihood)
    assert set(inference.findings(net)) == {"prior precision"} | ({"log marginal likelihood"} if not beta else set())


def test_the_hessian_of_beta_nll_is_the_mean_of_autograds_with_its_weights():
    """Labels whose squared residual is the variance, so that the expected Hessian is the Hessian."""
    likelihood = GaussianLikelihood(heteroscedastic=True, beta=0.5).for_training()
    outputs = torch.tensor([[0.3, 0.4], [-1.0, -0.8]], dtype=F64)
    scales = (outputs[:, 1:] / 2).exp()
    found = likelihood.output_hessian(outputs, outputs[:, :1])
    plain = GaussianLikelihood(heteroscedastic=True)
    for index in range(2):
        row = outputs[index : index + 1]

        def nll(values, row=row):
            labels = torch.cat([row[:, :1] - (row[:, 1:] / 2).exp(), row[:, :1] + (row[:, 1:] / 2).exp()])
            return plain.nll(values.expand(1, 2, -1), labels)

        expected = torch.autograd.functional.hessian(nll, row).squeeze((0, 2)) * scales[index]
        torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-4)  # log variances are bounded smoothly


def test_outputs_that_are_not_finite_are_still_the_layers():
    net = Laplace().prepare(GaussianLikelihood().prepare(nn.Sequential(nn.Linear(INPUTS, 1))), None, "*")
    outputs, _ = outputs_and_features(net, torch.full((2, INPUTS), torch.nan))
    assert outputs.shape == (2, 2)


def mixed_network():
    """With batch norm and dropout, whose modes matter, and a linear layer that is not the last."""
    return nn.Sequential(
        nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 10)
    )


def test_training_is_that_of_the_deterministic_network_and_the_posterior_is_that_of_eval_mode():
    torch.manual_seed(3)
    twin = BayesianModule(mixed_network())
    torch.manual_seed(3)
    model = BayesianModule(mixed_network(), inference=Laplace(prior_precision=1.0))
    for each in (twin, model):
        fit(each, epochs=2)
    plain = dict(twin.network.named_parameters())
    for name, part in random_tensors(model.network):
        torch.testing.assert_close(part.mean, plain[name], rtol=0, atol=0)
    data = digits()
    data.setup("fit")
    net = twin.network.eval()
    with torch.no_grad():
        logits, features, probs = [], [], []
        for x, _ in data.train_dataloader():
            features.append(net[:5](x).double())
            logits.append(net(x).double())
        probs, features = torch.cat(logits).softmax(-1), torch.cat(features)
    ones = torch.cat([features, torch.ones(len(features), 1)], 1)
    lambdas = torch.diag_embed(probs) - probs.unsqueeze(1) * probs.unsqueeze(2)
    hessian = torch.einsum("nkl,ni,nj->kilj", lambdas, ones, ones).reshape(130, 130)
    variances = torch.linalg.inv(hessian + torch.eye(130)).diagonal().view(10, 13)
    tensors = dict(random_tensors(model.network))
    torch.testing.assert_close(tensors["5.weight"].variance.double(), variances[:, :12], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(tensors["5.bias"].variance.double(), variances[:, 12], rtol=1e-4, atol=1e-7)
    assert set(draw(model.network)) == {"5.weight", "5.bias"}
    assert model.objective == "likelihood"


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
def test_a_run_that_is_made_longer_has_no_posterior_before_its_end(structure):
    x, y = examples()
    net, inference = fitted([(x, y)], structure=structure), Laplace(structure=structure)
    assert all((part.variance > 0).any() for _, part in random_tensors(net))
    inference.loss(net, x, y, Categorical(), Step(1, 0, 1, 2, EXAMPLES))
    assert all((part.variance == 0).all() for _, part in random_tensors(net))
    assert inference.findings(net) == {}


def test_what_cannot_be_is_refused_in_a_sentence():
    net = nn.Sequential(nn.Linear(2000, 50), nn.Linear(50, 10))
    with pytest.raises(ValueError, match=r"^method must be null for Laplace, which brings its own, got BBB\.$"):
        Laplace().prepare(net, BBB(), "*")
    with pytest.raises(ValueError, match=r"^only must be \* for Laplace, whose setting layer names .*, got fc\*\.$"):
        Laplace().prepare(net, None, "fc*")
    with pytest.raises(ValueError, match=r"^layer must be the name of a linear layer, one of 0, 1, got fc3\.$"):
        Laplace(layer="fc3").prepare(net, None, "*")
    with pytest.raises(ValueError, match=r"^network must have a linear layer as its last for .*, got none\.$"):
        Laplace().prepare(nn.Conv2d(1, 1, 1), None, "*")
    with pytest.raises(ValueError, match=r"^structure must be one that takes at most .* got full, .*; kron takes 0\."):
        Laplace(layer="0").prepare(net, None, "*")
    with pytest.raises(ValueError, match=r"^structure must be one of full, kron, diag, got 'half'\.$"):
        Laplace(structure="half")
    with pytest.raises(ValueError, match=r"^prior_precision must be a positive number, got 0\.$"):
        Laplace(prior_precision=0)


def test_a_layer_whose_outputs_are_not_the_networks_is_refused_before_training():
    net = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10), nn.ReLU())
    with pytest.raises(
        ValueError, match=r"^layer must be the linear layer whose outputs are those of the network, got"
    ):
        fit(BayesianModule(net, inference=Laplace()))


def test_a_likelihood_without_a_hessian_is_refused_before_training():
    class Unknown(Categorical):
        output_hessian = Likelihood.output_hessian

    net = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match=r"^likelihood must be one with an output_hessian, .*, got Unknown\.$"):
        fit(BayesianModule(net, inference=Laplace(), likelihood=Unknown()))
