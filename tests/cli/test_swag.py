"""SWAG as the inference of ``bnn fit``: its checkpoints are tested, predicted with and gone on with like any other."""

from pathlib import Path

from bnn_lightning import BayesianModule, random_tensors
from bnn_lightning.cli import main
from tests.helpers import FOR_NUMBERS, ROOT, SMALL, printed

pytestmark = FOR_NUMBERS
WORDS = ["fit", "--config", str(ROOT / "configs" / "lenet_swag.yaml"), *SMALL, "--data.batch_size", "32"]


def test_a_run_is_tested_and_predicted_with_and_goes_on(capsys):
    assert main([*WORDS, "--trainer.max_epochs", "1"]) == 0
    text = printed(capsys)
    assert "LeNet, SWAG, MNIST5k" in text
    last = "checkpoints/lenet_swag_mnist5k/version_0/last.ckpt"
    assert main(["test", "--ckpt_path", last, "--model.sampling.test_samples", "3"]) == 0
    assert "3 weight draws" in printed(capsys)
    assert main(["validate", "--ckpt_path", last]) == 0
    assert "5 weight draws" in printed(capsys)
    assert main(["predict", "--ckpt_path", last]) == 0
    network = BayesianModule.from_checkpoint(last).network
    assert {int(part.collected) for _, part in random_tensors(network)} == {
        2
    }  # 4 in 15 steps, in the last 7, and the end
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "2"]) == 0
    assert main(["export", "--ckpt_path", last, "--removed", "0.5"]) == 2
    assert "says how far its weights have moved in training" in printed(capsys)


def test_what_cannot_be_is_a_sentence_before_anything_is_written(capsys):
    for words, sentence in (
        (["--model.method", "BBB"], "--model.method must be null for SWAG, which brings its own, got BBB."),
        (["--model.inference.max_gigabytes", "0.001"], "--model.inference.rank must be one for which 61,706 weights"),
        (["--trainer.precision", "bf16-true"], "is too coarse for the posterior of SWAG; bf16-mixed keeps it in"),
    ):
        assert main([*WORDS, *words]) == 2
        assert sentence in printed(capsys)
    assert not Path("checkpoints").exists()
