"""``bnn laplace``, and Laplace as the inference of ``bnn fit``: checkpoints that every other verb takes."""

import json
from pathlib import Path

import pytest
import torch

from bnn_lightning import BayesianModule, draw, random_tensors, to_plain
from bnn_lightning.checkpoints.record import KEY, read_checkpoint
from bnn_lightning.cli import main
from tests.helpers import FOR_NUMBERS, ROOT, SMALL, printed

pytestmark = FOR_NUMBERS
WORDS = ["--config", str(ROOT / "configs" / "lenet_laplace.yaml"), *SMALL]


def state_of(path):
    return read_checkpoint(path)["state_dict"]


def test_a_bayesian_checkpoint_becomes_one_around_its_mean_weights(run, capsys):
    given = run / "last.ckpt"
    assert main(["laplace", "--ckpt_path", str(given), "--structure", "kron"]) == 0
    text = printed(capsys)
    assert "Log marginal likelihood -" in text
    assert "; prior precision " in text
    assert "Validation NLL: " in text
    written = Path("checkpoints/lenet_lrt_mnist5k_laplace/version_0/laplace.ckpt")
    assert f"Next: bnn test --ckpt_path {written}" in text
    before, after = BayesianModule.from_checkpoint(given), BayesianModule.from_checkpoint(written)
    assert {name for name, _ in random_tensors(after.network)} == {"fc3.weight", "fc3.bias"}
    plain = to_plain(before.network).state_dict()
    for name, value in to_plain(after.network).state_dict().items():
        torch.testing.assert_close(value, plain[name], rtol=0, atol=0)
    assert dict(random_tensors(after.network))["fc3.weight"].variance.min() > 0
    assert set(read_checkpoint(written)[KEY]["calibration"]) == {"weights", "mean", "moments"}
    for verb in ("test", "validate", "predict"):
        assert main([verb, "--ckpt_path", str(written), "--model.sampling.test_samples", "3"]) == 0
    assert "3 weight draws" in printed(capsys)
    folder = Path("lightning_logs/lenet_lrt_mnist5k_laplace/version_0")
    results = json.loads((folder / "test_mnist5k_laplace.json").read_text())
    assert (results["method"], results["inference"]) == ("Laplace", "Laplace")
    assert main(["export", "--ckpt_path", str(written), "--removed", "0.2"]) == 0
    assert main(["fit", "--ckpt_path", str(written), "--trainer.max_epochs", "9"]) == 2
    assert "holds no training state" in printed(capsys)
    again = ["laplace", "--ckpt_path", str(written), "--prior_precision", "5", "--structure", "diag"]
    assert main([*again, "--output", "mine.ckpt"]) == 0
    assert "prior precision 5" in printed(capsys)
    assert main([*again, "--output", "mine.ckpt"]) == 2
    assert "--output mine.ckpt is there already; name another file." in printed(capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--layer", "fc9"], "--layer must be the name of a linear layer, one of fc1, fc2, fc3, got fc9."),
        (["--layer", "fc1", "--structure", "diag"], "--layer must be the linear layer whose outputs are those of the"),
        (["--max_gigabytes", "0.001"], "--structure must be one that takes at most max_gigabytes, 0.001, for fc3 with"),
        (["--prior_precision", "-1"], "--prior_precision must be a positive number, got -1.0."),
    ],
)
def test_what_cannot_be_is_a_sentence_and_writes_nothing(words, sentence, run, capsys):
    assert main(["laplace", "--ckpt_path", str(run / "last.ckpt"), *words]) == 2
    assert sentence in printed(capsys)
    assert not Path("checkpoints/lenet_lrt_mnist5k_laplace").exists()


def test_fit_forms_the_posterior_at_the_end_and_a_run_that_goes_on_ends_alike(capsys):
    assert main(["fit", *WORDS, "--trainer.max_epochs", "2", "--name", "whole"]) == 0
    text = printed(capsys)
    assert "LeNet, Laplace, MNIST5k" in text
    assert "Log marginal likelihood -" in text
    whole = state_of("checkpoints/whole/version_0/last.ckpt")
    assert whole["network.fc3.weight.factor"].abs().min() >= 0
    assert whole["network.fc3.prior_precision"] > 0
    assert main(["fit", *WORDS, "--trainer.max_epochs", "1", "--name", "parts"]) == 0
    last = "checkpoints/parts/version_0/last.ckpt"
    assert main(["fit", "--ckpt_path", last, "--model.inference.structure", "diag", "--trainer.max_epochs", "2"]) == 2
    assert "--model.inference.structure is full to the end of a run that goes on, got diag." in printed(capsys)
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "2"]) == 0
    model = BayesianModule.from_checkpoint(last)
    assert draw(model.network)["fc3.weight"].shape == (10, 84)
    assert model.network.fc3.weight.variance.min() > 0
    assert main(["fit", *WORDS, "--trainer.precision", "bf16-true"]) == 2
    assert "--trainer.precision bf16-true is too coarse for the posterior of Laplace" in printed(capsys)
