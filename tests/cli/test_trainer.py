"""Lightning's callbacks, profilers and loggers on the command line: heard, said rightly, or refused in a sentence."""

import logging
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bnn_lightning.checkpoints.record import read_checkpoint
from bnn_lightning.cli import main
from bnn_lightning.cli.trainer import ended_together
from bnn_lightning.files import UnwritableError
from tests.helpers import LENET, ON_THE_COMMAND_LINE, SMALL, printed

pytestmark = ON_THE_COMMAND_LINE
FIT = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "2", "--name", "run"]


@pytest.fixture
def heard(caplog, monkeypatch):
    """What Lightning logs; its own handler would print it."""
    for logger in (logging.getLogger("lightning.pytorch"), logging.getLogger("lightning")):
        monkeypatch.setattr(logger, "propagate", True)
    return caplog


@pytest.mark.parametrize(
    ("logger", "curves"),
    [
        ("", "tensorboard --logdir lightning_logs"),
        ("false", "lightning_logs/run/version_0/metrics.csv"),
        ("CSVLogger --trainer.logger.save_dir mine", "lightning_logs/run/version_0/metrics.csv"),
        ("TensorBoardLogger --trainer.logger.save_dir mine", "tensorboard --logdir mine"),
    ],
)
def test_curves_are_announced_where_they_are(logger, curves, capsys):
    assert main([*FIT, *(["--trainer.logger", *logger.split()] if logger else [])]) == 0
    said = [line.split(":", 1)[1].strip() for line in printed(capsys).splitlines() if line.startswith("Curves:")]
    assert said == [curves]
    folder = Path(curves.removeprefix("tensorboard --logdir "))
    assert folder.is_file() or list(folder.rglob("events*"))


def test_a_logger_whose_package_is_missing_is_one_sentence(capsys):
    assert main([*FIT, "--trainer.logger", "MLFlowLogger"]) == 2
    said = printed(capsys)
    assert said.startswith(
        "bnn: error: --trainer.logger MLFlowLogger needs mlflow, which is not installed: pip install"
    )
    assert said.count("\n") == 1


@pytest.mark.parametrize("callback", ["EarlyStopping", "ModelCheckpoint"])
def test_a_metric_that_is_not_logged_is_one_sentence(callback, capsys):
    words = ["--trainer.callbacks", callback, "--trainer.callbacks.monitor", "val/nl"]
    assert main([*FIT, *words]) == 2
    last = printed(capsys).splitlines()[-1]
    assert last.startswith("bnn: error: --trainer.callbacks.monitor must be one of val/accuracy, val/nll, ")
    assert last.endswith("got val/nl (did you mean val/nll?).")


def test_validating_more_rarely_than_an_epoch_lasts_is_one_sentence_and_leaves_no_folders(capsys):
    assert main([*FIT, "--data.batch_size", "100", "--trainer.val_check_interval", "100"]) == 2
    sentence = (
        "--trainer.val_check_interval must be a share of an epoch such as 0.5, or at most the 5 batches that an epoch "
        "has, got 100."
    )
    assert printed(capsys).splitlines()[1:] == [f"bnn: error: {sentence}"]
    assert list(Path().iterdir()) == []


def test_lines_of_callbacks_are_heard_and_those_of_hardware_are_not(heard):
    words = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "val/nll"]
    assert main([*FIT, *words, "--trainer.callbacks.verbose", "true"]) == 0
    assert "Metric val/nll improved." in heard.text
    assert "GPU available" not in heard.text


@pytest.mark.parametrize("profiler", ["simple", "advanced", "pytorch"])
def test_a_profile_is_shown(profiler, heard):
    assert main([*FIT, "--trainer.profiler", profiler]) == 0
    assert "Profiler Report" in heard.text.replace("FIT ", "")
    assert "Callback]" in heard.text
    few = ["--model.sampling.test_samples", "2", "--trainer.limit_test_batches", "1"]
    best = "checkpoints/run/version_0/best.ckpt"
    assert main(["test", "--ckpt_path", best, "--trainer.profiler", profiler, *few]) == 0


def test_averaged_weights_are_those_that_were_validated(capsys):
    assert main([*FIT, "--trainer.callbacks", "WeightAveraging"]) == 0
    for name in ("best", "last"):
        path = f"checkpoints/run/version_0/{name}.ckpt"
        nll = read_checkpoint(path)["bnn_lightning"]["validation"]["val/nll"]
        printed(capsys)
        assert main(["validate", "--ckpt_path", path]) == 0
        assert f"{nll:.4f}" in printed(capsys)


@pytest.mark.parametrize("inference", ["Laplace", "SWAG"])
@pytest.mark.parametrize("callback", ["EarlyStopping", "WeightAveraging", "EMAWeightAveraging"])
def test_what_would_lose_a_posterior_that_is_formed_at_the_end_is_refused(inference, callback, capsys):
    words = ["--model.method", "null", "--model.inference", inference, "--trainer.callbacks", callback]
    words += ["--trainer.callbacks.monitor", "val/nll"] if callback == "EarlyStopping" else []
    assert main([*FIT, *words]) == 2
    assert f"--trainer.callbacks {callback} is not for {inference}: it " in printed(capsys)
    assert not Path("checkpoints").exists()


def test_a_search_for_the_rate_of_ivon_is_refused(capsys):
    words = ["--model.inference", "IVON", "--trainer.callbacks", "LearningRateFinder"]
    assert main([*FIT, *words]) == 2
    assert (
        "--trainer.callbacks LearningRateFinder is not for IVON: it tries each rate in a step of the warm-up"
        in printed(capsys)
    )


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("devices", "0", "must be how many devices to use, at least 1, or their numbers, got 0."),
        ("accelerator", "gpu", "must be one that this machine and its torch have, got gpu"),
        ("barebones", "true", "must be false, for a run has a log and checkpoints, got true"),
    ],
)
def test_a_trainer_that_cannot_run_is_refused_with_the_flag(flag, value, said, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main([*FIT, f"--trainer.{flag}", value]) == 2
    assert f"bnn: error: --trainer.{flag} {said}" in printed(capsys)
    assert not Path("checkpoints").exists()


def test_a_progress_bar_of_ones_own_is_shown(capsys):
    assert main([*FIT, "--trainer.callbacks", "TQDMProgressBar"]) == 0
    assert "Epoch 1: 100%" in printed(capsys)


def test_the_rate_that_was_found_trains_under_a_schedule_too():
    words = ["--model.inference.lr_schedule", "LinearDecay", "--data.batch_size", "10"]
    words += ["--model.inference.kl_weight.length", "1"]  # a whole epoch: within one the KL would rise under the finder
    finder = ["--trainer.callbacks", "LearningRateFinder", "--trainer.callbacks.num_training_steps", "30"]
    assert main([*FIT, *words, *finder]) == 0
    rates = read_checkpoint("checkpoints/run/version_0/last.ckpt")["lr_schedulers"][0]["base_lrs"]
    assert torch.tensor(rates).sub(1e-3).abs().min() > 1e-6  # 0.001 is the config's


@pytest.mark.parametrize("monitor", ["val_loss", "loss"])
def test_a_metric_that_nothing_logs_is_refused_before_training(monitor, capsys):
    words = ["--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", monitor]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 2
    said = printed(capsys)
    meant = "val/loss" if monitor == "val_loss" else "val/nll"
    assert f"got {monitor}; did you mean {meant}?" in said
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize("callback", ["EarlyStopping", "ModelCheckpoint"])
def test_what_follows_validation_is_refused_before_training_where_there_is_none(callback, capsys):
    words = ["--trainer.callbacks", callback, "--trainer.callbacks.monitor", "val/nll", "--data.val_split", "0"]
    assert main([*FIT, *words]) == 2
    asked = f"--trainer.callbacks {callback} needs a hold-out to watch; set --data.val_split above 0, or choose one"
    assert asked in printed(capsys)
    assert not list(Path().rglob("*.ckpt"))


def test_an_error_ends_the_other_processes_of_a_run():
    killed = []
    launcher = SimpleNamespace(kill=killed.append)
    trainer = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher), interrupted=False)
    with pytest.raises(UnwritableError, match="full"), ended_together(trainer):
        raise UnwritableError("full")
    assert killed == [signal.SIGKILL]
    with pytest.raises(SystemExit, match="7"), ended_together(trainer):
        sys.exit(7)  # of a verb of somebody's own
    with ended_together(trainer):
        pass
    assert len(killed) == 2
