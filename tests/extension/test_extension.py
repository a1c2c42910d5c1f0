"""One new thing of each kind, from outside: trained, tested and used through the command line, by class path."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributions

from bnn_lightning import LRT, Flipout, Normal, bayesianize, describe, draw, kl
from bnn_lightning.cli import main
from tests.extension.likelihood import Poisson
from tests.extension.network import ScaledNet
from tests.extension.posterior import RankOneNoise
from tests.extension.prior import SoftBox
from tests.helpers import ON_THE_COMMAND_LINE, ROOT, printed, table

pytestmark = ON_THE_COMMAND_LINE
HERE = "tests.extension"
QUICK = ["--trainer.max_epochs", "2", "--name", "new", "--data.batch_size", "50"]
OWN = ["--model.network", f"{HERE}.network.ScaledNet", "--data", f"{HERE}.data.Bars", *QUICK]


def fit_and_test(*words):
    """Trains and tests; the results of the test."""
    assert main(["fit", *OWN, *words]) == 0
    assert main(["test", "--ckpt_path", "checkpoints/new/version_0/last.ckpt"]) == 0
    return json.loads(Path("lightning_logs/new/version_0/test_bars_last.json").read_text())


def test_a_method_network_layer_kind_and_data_module(capsys):
    results = fit_and_test("--model.method", f"{HERE}.method.DropConnect", "--model.method.p", "0.2")
    assert (results["method"], results["network"], results["data"]) == ("DropConnect", "ScaledNet", "Bars")
    assert results["sampling"] == {"draws": "weights", "samples": 25, "members": 1}
    assert set(results["predictions"]) == {"samples", "one_sample", "mean_weights"}
    assert main(["predict", "--ckpt_path", "checkpoints/new/version_0/last.ckpt"]) == 0
    rows = table(Path("lightning_logs/new/version_0/predictions.csv"))
    assert len(rows) == 100
    assert float(rows[0]["entropy"]) > 0


def test_a_posterior_and_a_prior(capsys):
    posterior, prior = f"{HERE}.posterior.RankOneNoise", f"{HERE}.prior.SoftBox"
    results = fit_and_test(
        "--model.method", "BBB", "--model.method.posterior", posterior, "--model.method.posterior.scale", "0.02"
    )
    assert results["training"]["kl_per_n"] > 0
    record = torch.load("checkpoints/new/version_0/last.ckpt", weights_only=True)
    assert "network.conv1.weight.direction" in record["state_dict"]
    words = ["--model.method", "LRT", "--model.method.prior", prior, "--model.method.prior.width", "0.5"]
    assert main(["fit", *OWN, *words]) == 0
    capsys.readouterr()
    assert main(["fit", *OWN, "--model.method", "LRT", "--model.method.posterior", posterior]) == 2
    error = "--model.method.posterior must have independent elements for LRT, which draws each output by itself, got"
    assert error in printed(capsys)


def test_an_inference():
    assert main(["fit", *OWN, "--model.inference", f"{HERE}.inference.AveragedSGD", "--model.inference.lr", "0.1"]) == 0
    state = torch.load("checkpoints/new/version_0/last.ckpt", weights_only=True)["state_dict"]
    assert state["network.epochs_averaged"] == 2
    torch.testing.assert_close(state["network.head.weight"], state["network.sum_of_head_weight"] / 2)
    assert main(["test", "--ckpt_path", "checkpoints/new/version_0/last.ckpt"]) == 0


def test_a_likelihood(capsys):
    words = [
        "--model.likelihood",
        f"{HERE}.likelihood.Poisson",
        "--model.network.outputs",
        "1",
        "--model.method",
        "BBB",
    ]
    results = fit_and_test(*words, "--model.inference.lr", "0.01", "--data.ood", "[RenderedLetters]")
    assert set(results["predictions"]["samples"]) == {"closeness", "nll"}
    assert list(results["ood"]["RenderedLetters"]) == ["epistemic"]
    assert "closeness" in printed(capsys)
    assert main(["predict", "--ckpt_path", "checkpoints/new/version_0/best.ckpt"]) == 0
    row = table(Path("lightning_logs/new/version_0/predictions.csv"))[0]
    assert set(row) == {"file", "mean", "aleatoric", "epistemic", "error"}


def test_an_export_format_and_a_verb(capsys):
    assert (
        main(["fit", "--model.network", "LeNet", "--data", f"{HERE}.data.Bars", *QUICK, "--model.method", "LRT"]) == 0
    )
    last = "checkpoints/new/version_0/last.ckpt"
    assert main(["export", "--ckpt_path", last, "--removed", "0.5", "--format", f"{HERE}.export_format.Npz"]) == 0
    assert "numpy.load(FILE) has its arrays" in printed(capsys)
    arrays = np.load("checkpoints/new/version_0/last.npz")
    assert json.loads(str(arrays["record"]))["checkpoint"] == last
    assert arrays["conv1.weight"].shape[1:] == (1, 5, 5)
    assert main([f"{HERE}.verb.Layers", "--ckpt_path", last, "--only_random", "true"]) == 0
    lines = printed(capsys).splitlines()
    assert lines[0].split() == ["layer", "kind", "method", "random", "deterministic"]
    assert lines[1].split() == ["conv1", "Conv2d", "LRT", "156", "0"]


def test_no_file_of_ours_had_to_know():
    # Every word that these files define: none of them stands in the package.
    names = {
        "DropConnect",
        "RankOneNoise",
        "SoftBox",
        "AveragedSGD",
        "Poisson",
        "class Scale(",
        "ScaledNet",
        "Bars",
        "Npz",
    }
    lines = [
        line
        for path in (ROOT / "bnn_lightning").rglob("*.py")
        for line in path.read_text().splitlines()
        if any(name in line for name in names) or "tests.extension" in line
    ]
    assert lines == []


def test_the_kl_of_the_correlated_posterior_is_torchs():
    torch.manual_seed(0)
    mu, rho = torch.randn(4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    posterior = RankOneNoise(mu, rho, Normal(0.2, 0.7), scale=0.5)
    sigma, v = torch.nn.functional.softplus(rho), posterior.direction
    q = distributions.MultivariateNormal(mu, torch.diag(sigma**2) + torch.outer(v, v))
    p = distributions.MultivariateNormal(torch.full_like(mu, 0.2), 0.49 * torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(posterior.kl(), distributions.kl_divergence(q, p), rtol=1e-10, atol=0)


def test_local_noise_and_flipped_signs_are_refused_for_a_correlated_posterior():
    for method in (LRT, Flipout):
        with pytest.raises(ValueError, match=rf"^posterior must .* for {method.__name__}, .* RankOneNoise.*; use BBB"):
            bayesianize(ScaledNet(), method(posterior=RankOneNoise))


def test_the_kl_of_the_prior_is_the_integral():
    torch.manual_seed(0)
    prior = SoftBox(0.9)
    mu, sigma = torch.tensor([0.0, 0.4, -1.0], dtype=torch.float64), torch.tensor([0.1, 0.5, 0.2], dtype=torch.float64)
    w = torch.linspace(-8, 8, 400_001, dtype=torch.float64).unsqueeze(1)
    log_q = distributions.Normal(mu, sigma).log_prob(w)
    integral = torch.trapezoid(log_q.exp() * (log_q - prior.log_prob(w)), w, dim=0).sum()
    torch.testing.assert_close(prior.kl(mu, sigma, sigma.log()), integral, rtol=1e-6, atol=0)


def test_a_prior_may_depend_on_the_fan_in():
    net = bayesianize(ScaledNet(), LRT(prior=SoftBox(1.0)))
    assert net.conv2.weight.prior.width == pytest.approx(1 / 72**0.5)
    assert net.conv2.bias.prior.width == 1.0


def test_the_likelihood_sums_to_one_over_counts():
    predictive = Poisson().predictive(torch.randn(5, 3, 1))
    total = sum(Poisson().log_prob(predictive, torch.full((3,), count)).exp() for count in range(200))
    torch.testing.assert_close(total, torch.ones(3), rtol=1e-5, atol=0)


def test_draws_and_description_know_a_layer_kind_of_somebody_elses():
    net = bayesianize(ScaledNet(), LRT(), only="scale")
    assert set(draw(net)) == {"scale.weight", "scale.bias"}
    assert kl(net) > 0
    assert describe(net).random == 16
    kinds = {layer.name: (layer.kind, layer.random, layer.deterministic) for layer in describe(net).layers}
    assert kinds["scale"] == ("Scale", 16, 0)
    assert kinds["head"] == ("Linear", 0, 730)


def test_the_verb_is_met_by_its_users_as_one_of_ours(tmp_path):
    words = [sys.executable, "-m", "bnn_lightning", f"{HERE}.verb.Layers", "--help"]
    result = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Show the layers of a checkpoint, and which of their numbers are random." in result.stdout
    assert "--only_random" in result.stdout
