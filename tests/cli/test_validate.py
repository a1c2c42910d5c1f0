"""``bnn validate``: the hold-out of the checkpoint's own split, and no other."""

import re
import shutil
import signal

import pytest

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli import main
from bnn_lightning.training.module import BayesianModule
from tests.helpers import LENET, ON_THE_COMMAND_LINE, SMALL, printed

pytestmark = ON_THE_COMMAND_LINE


def test_validate_reports_the_hold_out(run, capsys):
    assert main(["validate", "--ckpt_path", str(run / "last.ckpt")]) == 0
    out = printed(capsys)
    assert "MNIST5k, 60 images:" in out
    assert re.search(r"\n +5 local draws\naccuracy +\d+\.\d\d %\n", out)


def test_a_runs_folder_is_its_best_epoch_and_training_goes_on_from_its_last(run, tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(run / "last.ckpt", folder)
    assert main(["validate", "--ckpt_path", str(folder)]) == 0
    assert Record.read(folder).path == folder / "last.ckpt"
    shutil.copy(run / "last.ckpt", folder / "best.ckpt")
    assert Record.read(folder).path == folder / "best.ckpt"
    assert main(["fit", "--ckpt_path", str(folder)]) == 2
    assert f"--ckpt_path {folder / 'last.ckpt'} has finished its 2 epochs" in printed(capsys)


def test_a_hold_out_that_has_the_training_images_is_refused(run, capsys):
    assert main(["validate", "--ckpt_path", str(run / "last.ckpt"), "--data", "MNIST", "--data.root", "mnist"]) == 2
    sentence = "--data must be the checkpoint's, MNIST5k, got MNIST, whose hold-out has its training images."
    assert sentence in printed(capsys)


def test_a_run_goes_on_with_its_hold_out(run, capsys):
    # On another one it would be validated and calibrated on images that it was trained on.
    for flag, value in (("seed", "7"), ("val_split", "0.5"), ("train_subset", "300")):
        words = ["--trainer.max_epochs", "9", f"--data.{flag}", value]
        assert main(["fit", "--ckpt_path", str(run / "last.ckpt"), *words]) == 2
        assert f"--data.{flag} must be the checkpoint's" in printed(capsys)


def test_validate_refuses_another_split_and_a_run_without_one(run, capsys):
    assert main(["validate", "--ckpt_path", str(run / "last.ckpt"), "--data.seed", "5"]) == 2
    sentence = "--data.seed must be the checkpoint's, 0, got 5; on another split the hold-out has training images."
    assert sentence in printed(capsys)
    assert (
        main(["fit", "--config", LENET, *SMALL, "--data.val_split", "0", "--trainer.max_epochs", "1", "--name", "all"])
        == 0
    )
    assert main(["validate", "--ckpt_path", "checkpoints/all/version_0/last.ckpt"]) == 2
    assert "was trained without a hold-out to validate on." in printed(capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("verb", "step"), [("validate", "validation_step"), ("test", "test_step")])
def test_what_is_stopped_says_so_and_has_the_exit_code_of_the_signal(verb, step, number, run, monkeypatch, capsys):
    # Lightning's own answer was an exit code of 1, and after SIGTERM that of success, without a word.
    measure = getattr(BayesianModule, step)

    def stopping(self, batch, batch_idx):
        if batch_idx == 1:
            signal.raise_signal(number)
        return measure(self, batch, batch_idx)

    monkeypatch.setattr(BayesianModule, step, stopping)
    handler = signal.getsignal(signal.SIGINT)
    try:
        words = [verb, "--ckpt_path", str(run / "last.ckpt"), "--data.eval_batch_size", "10"]
        assert main(words) == 128 + number
    finally:
        signal.signal(signal.SIGINT, handler)
    assert f"bnn: stopped by {signal.Signals(number).name}.\n" in printed(capsys)
    assert not list(run.parents[2].glob("lightning_logs/*/*/test_*"))
