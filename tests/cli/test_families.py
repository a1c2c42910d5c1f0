"""Every posterior, prior, family and mask by its word on the command line: two steps of training, and a test."""

import json
from pathlib import Path

import pytest

from bnn_lightning.cli import main
from bnn_lightning.cli.names import names_of
from bnn_lightning.core.priors import Prior
from tests.helpers import FOR_NUMBERS, printed

pytestmark = FOR_NUMBERS

TWO_STEPS = ["--model.network", "LeNet", "--data", "MNIST5k", "--data.train_subset", "600", "--data.batch_size", "240"]
WORDS = {
    "Gaussian": "BBB --model.method.posterior Gaussian",
    "Radial": "BBB --model.method.posterior Radial",
    "Radial under Flipout": "Flipout --model.method.posterior Radial --model.method.prior LaplacePrior",
    "LowRank": "LRT --model.method.posterior LowRank --model.method.posterior.rank 3",
    "Normal": "LRT --model.method.prior Normal --model.method.prior.sigma 0.2",
    "FanIn": "LRT --model.method.prior FanIn --model.method.prior.scale 0.5",
    "LaplacePrior": "LRT --model.method.prior LaplacePrior --model.method.prior.scale 0.2",
    "StudentTPrior": "LRT --model.method.prior StudentTPrior --model.method.prior.df 4 --model.method.prior.scale 0.2",
    "ScaleMixture": "BBB --model.method.prior ScaleMixture",
    "LearntScale": "LRT --model.method.prior LearntScale",
    "Rank1": "Rank1 --model.method.prior_scale 0.2",
    "Rank1, Cauchy": "Rank1 --model.method.family cauchy",
    "channel masks": "MCDropout --model.method.mask channel",
    "shared masks": "GaussianS --model.method.mask channel --model.method.shared true",
}


def test_all_priors_are_among_them():
    assert set(names_of(Prior)) <= set(WORDS)


@pytest.mark.parametrize("name", WORDS)
def test_a_family_trains_and_is_tested_by_one_word(name):
    words = ["--model.method", *WORDS[name].split(), "--trainer.max_epochs", "1", "--name", "one"]
    assert main(["fit", *TWO_STEPS, *words]) == 0
    assert main(["test", "--ckpt_path", "checkpoints/one/version_0/last.ckpt"]) == 0
    results = json.loads(Path("lightning_logs/one/version_0/test_mnist5k_last.json").read_text())
    assert results["method"] == WORDS[name].split()[0]
    assert results["sampling"]["draws"] == ("local" if name == "channel masks" else "weights")
    assert ("elbo/N is no bound" in results["caveats"]) == (name == "Rank1, Cauchy")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("LRT --model.method.posterior Radial", "--model.method.posterior must have independent elements for LRT"),
        ("LRT --model.method.posterior LowRank --model.method.posterior.rank 0", "rank must be 1 or more, got 0."),
        (
            "BBB --model.method.prior StudentTPrior --model.method.prior.df -1",
            "df must be a positive number of degrees of",
        ),
        (
            "Rank1 --model.method.family laplace",
            "--model.method.family must be one of gaussian, cauchy, got laplace",
        ),
    ],
)
def test_what_does_not_fit_is_a_sentence(words, sentence, capsys):
    assert main(["fit", *TWO_STEPS, "--model.method", *words.split()]) == 2
    assert sentence in printed(capsys)


def test_cauchy_weights_are_not_pruned(capsys):
    words = ["--model.method", "Rank1", "--model.method.family", "cauchy", "--trainer.max_epochs", "1", "--name", "one"]
    assert main(["fit", *TWO_STEPS, *words]) == 0
    assert main(["prune", "--ckpt_path", "checkpoints/one/version_0/last.ckpt"]) == 2
    assert "family must be gaussian for variances and signal-to-noise ratios of weights, got cauchy." in printed(capsys)
