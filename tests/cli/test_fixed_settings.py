"""What a checkpoint has fixed: settings that flags may not change, in a run that goes on and where it is used."""

import shutil
from pathlib import Path

import pytest

from bnn_lightning.cli.entry import first_error, main
from bnn_lightning.shipped import names
from tests.helpers import FOR_NUMBERS, LENET, SMALL, printed

pytestmark = FOR_NUMBERS
FORMAT_1 = Path(__file__).parent.parent / "checkpoints" / "format_1.ckpt"
CHANGES = [
    ("--model.method.prior_sigma 1", "--model.method.prior_sigma is 0.1 {}, got 1.0"),
    ("--model.method BBB", "--model.method is LRT {}, got BBB"),
    ("--model.method null", "--model.method is LRT {}, got null"),
    ("--model.method.prior FanIn", "--model.method.prior is null {}, got FanIn"),
    ("--model.method.posterior LowRank", "--model.method.posterior is Gaussian {}, got LowRank"),
    ("--model.network AlexNet", "--model.network is LeNet {}, got AlexNet"),
    ("--model.network.activation softplus", "--model.network.activation is relu {}, got softplus"),
    ("--model.likelihood.label_smoothing 0.1", "--model.likelihood.label_smoothing is 0.0 {}, got 0.1"),
    ("--model.only fc*", "--model.only is * {}, got fc*"),
    ("--model.freeze conv1", "--model.freeze is null {}, got conv1"),
    ("--model.members 2", "--model.members is 1 {}, got 2"),
    ("--model.init_from twin.ckpt", "--model.init_from is null {}, got twin.ckpt"),
    ("--model.inference.lr 0.5", "--model.inference.lr is 0.001 {}, got 0.5"),
    ("--model.inference IVON", "--model.inference is Variational {}, got IVON"),
]


@pytest.mark.parametrize(("words", "sentence"), CHANGES, ids=[words for words, _ in CHANGES])
def test_what_made_a_network_is_no_flag_of_its_checkpoint(words, sentence, run):
    last = str(run / "last.ckpt")
    going_on = ["fit", "--ckpt_path", last, "--trainer.max_epochs", "3", *words.split()]
    assert first_error(going_on) == f"{sentence.format('to the end of a run that goes on')}."
    where = f"in the trained network of {last}"
    assert first_error(["test", "--ckpt_path", last, *words.split()]) == f"{sentence.format(where)}; leave it out."


def test_a_refused_change_leaves_the_run_as_it_was(run, capsys):
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    words = ["--trainer.max_epochs", "3", "--model.method", "BBB"]
    assert main(["fit", "--ckpt_path", str(run / "best.ckpt"), *words]) == 2
    assert printed(capsys) == "bnn: error: --model.method is LRT to the end of a run that goes on, got BBB.\n"
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before
    assert not Path("lightning_logs/lenet_lrt_mnist5k/version_1").exists()


def test_the_same_settings_in_other_words_are_no_change(run):
    same = ["--model.method", "bnn_lightning.core.methods.gaussian.LRT", "--model.method.prior_sigma", "1e-1"]
    same += ["--config", LENET, *SMALL, "--model.inference.optimizer", "torch.optim.adam.Adam"]
    same += ["--model.freeze", "null", "--model.only", "['*']"]
    free = ["--model.sampling.test_samples", "3", "--model.compile", "true", "--model.allow_shared_statistics", "true"]
    later = ["--trainer.max_epochs", "3", "--model.inference.kl_weight", "0.5", "--model.inference.samples", "2"]
    assert first_error(["fit", "--ckpt_path", str(run / "last.ckpt"), *same, *free, *later]) == ""
    assert first_error(["test", "--ckpt_path", str(run / "last.ckpt"), *same, *free]) == ""


def test_a_checkpoint_of_an_earlier_release_has_the_defaults_of_what_it_does_not_know():
    shutil.copy(FORMAT_1, "old.ckpt")
    words = ["--model.method", "LRT", "--model.inference.optimizer", "Adam", "--model.likelihood", "Categorical"]
    for verb in ("fit", "test"):
        assert first_error([verb, "--ckpt_path", "old.ckpt", *words]) == ""
        smoothed = first_error([verb, "--ckpt_path", "old.ckpt", "--model.likelihood.label_smoothing", "0.1"])
        assert smoothed.startswith("--model.likelihood.label_smoothing is 0.0 ")


@pytest.mark.parametrize("name", names("checkpoint"))
def test_checkpoints_that_come_with_the_package_are_taken_as_they_are(name):
    for verb in ("fit", "test"):
        assert first_error([verb, "--ckpt_path", name]) == ""
        at_another_rate = first_error([verb, "--ckpt_path", name, "--model.inference.lr", "7"])
        assert at_another_rate.startswith("--model.inference.lr is ")


def test_a_mask_may_be_shared_by_a_batch_once_the_network_is_trained():
    words = ["--model.method", "MCDropout", "--model.method.p", "0.1", "--trainer.max_epochs", "1", "--name", "dropout"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0
    last = "checkpoints/dropout/version_0/last.ckpt"
    shared = ["--ckpt_path", last, "--model.method.shared", "true"]
    assert first_error(["acquire", *shared]) == ""
    going_on = first_error(["fit", *shared, "--trainer.max_epochs", "2"])
    assert going_on == "--model.method.shared is false to the end of a run that goes on, got true."
    at_another_rate = first_error(["test", *shared, "--model.method.p", "0.2"])
    assert at_another_rate.startswith("--model.method.p is 0.1 in the trained network of")
