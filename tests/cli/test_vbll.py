"""VBLL as the inference of ``bnn fit``: its checkpoints are tested, predicted with and gone on with like any other."""

import pytest

from bnn_lightning.cli import main
from tests.helpers import FOR_NUMBERS, ROOT, SMALL, printed

pytestmark = FOR_NUMBERS
WORDS = ["fit", "--config", str(ROOT / "configs" / "lenet_vbll.yaml"), *SMALL]


@pytest.mark.parametrize(("covariance", "draws"), [("dense", "weight"), ("diagonal", "local")])
def test_a_run_is_tested_and_predicted_with_and_goes_on(covariance, draws, capsys):
    assert main([*WORDS, "--trainer.max_epochs", "1", "--model.inference.covariance", covariance]) == 0
    assert "LeNet, VBLL, MNIST5k" in printed(capsys)
    last = "checkpoints/lenet_vbll_mnist5k/version_0/last.ckpt"
    assert main(["test", "--ckpt_path", last, "--model.sampling.test_samples", "3"]) == 0
    assert "3 weight draws" in printed(capsys)
    assert main(["validate", "--ckpt_path", last]) == 0
    assert f"5 {draws} draws" in printed(capsys)
    assert main(["predict", "--ckpt_path", last]) == 0
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "2"]) == 0
    assert main(["export", "--ckpt_path", last, "--removed", "0.2"]) == 0


def test_what_cannot_be_is_a_sentence(capsys):
    for words, sentence in (
        (["--model.method", "LRT"], "--model.method must be null for VBLL, which brings its own, got LRT."),
        (["--model.only", "fc3"], "--model.only must be * for VBLL, whose setting layer names the random layer, got "),
        (["--model.inference.samples", "3"], "--model.inference.samples must be 1 for VBLL, whose bound draws nothing"),
    ):
        assert main([*WORDS, *words]) == 2
        assert sentence in printed(capsys)
