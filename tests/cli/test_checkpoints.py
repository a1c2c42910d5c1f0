"""Checkpoints on the command line and in Python: what they hold, and which ones are refused."""

from pathlib import Path

import torch

from bnn_lightning import BayesianModule, LeNet
from bnn_lightning.checkpoints.record import FORMAT_VERSION, KEY, read_checkpoint, without_training_state
from bnn_lightning.cli import main
from bnn_lightning.data import MNIST5k
from tests.helpers import FOR_NUMBERS, LENET, ROOT, SMALL, printed, table

pytestmark = FOR_NUMBERS


def test_every_trainer_setting_lies_in_the_checkpoint():
    words = [
        "--trainer.max_epochs",
        "1",
        "--trainer.gradient_clip_val",
        "0.5",
        "--trainer.check_val_every_n_epoch",
        "1",
    ]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0
    config = read_checkpoint("checkpoints/lenet_lrt_mnist5k/version_0/last.ckpt")[KEY]["config"]
    assert config["trainer"]["gradient_clip_val"] == 0.5
    assert len(config["trainer"]) > 30
    assert "weights_only" not in config
    assert config["data"]["init_args"]["train_subset"] == 600


def test_a_checkpoint_of_another_version_is_refused(run, capsys):
    checkpoint = read_checkpoint(run / "best.ckpt")
    checkpoint[KEY]["format_version"] = 99
    torch.save(checkpoint, "other.ckpt")
    assert main(["test", "--ckpt_path", "other.ckpt"]) == 2
    assert "other.ckpt has format version 99, this bnn_lightning reads versions up to 2" in printed(capsys)


def test_a_checkpoint_without_training_state_still_works(run, capsys):
    small = without_training_state(read_checkpoint(run / "best.ckpt"))
    torch.save(small, "small.ckpt")
    assert Path("small.ckpt").stat().st_size < 0.5 * (run / "best.ckpt").stat().st_size
    assert main(["test", "--ckpt_path", "small.ckpt"]) == 0
    assert Path("lightning_logs/small/version_0/test_mnist5k_small.json").is_file()


def test_a_checkpoint_is_a_model_in_python(run):
    model = BayesianModule.from_checkpoint(run / "best.ckpt")
    assert not model.training
    assert type(model.network) is LeNet
    data = MNIST5k(image_size=32)
    data.setup("test")
    assert model(next(iter(data.test_dataloader()))[0]).shape == (500, 10)


def test_a_setting_that_nobody_typed_is_the_checkpoints(run, capsys):
    checkpoint = torch.load(run / "best.ckpt", weights_only=True)
    checkpoint[KEY]["config"]["model"]["new_thing"] = 3
    checkpoint[KEY]["versions"]["bnn_lightning"] = "9.0"
    torch.save(checkpoint, "later.ckpt")
    assert main(["test", "--ckpt_path", "later.ckpt"]) == 2
    sentence = "--ckpt_path later.ckpt has the setting model.new_thing, which is not known here; it is of 9.0."
    assert sentence in printed(capsys)
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), "--model.new_thing", "3"]) == 2
    assert "--model.new_thing is not a flag" in printed(capsys)


def test_the_committed_checkpoint_predicts_digits(capsys):
    path = ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt"
    assert path.stat().st_size < 1_000_000
    assert read_checkpoint(path)[KEY]["format_version"] == FORMAT_VERSION  # of another release, and upgraded
    assert main(["test", "--ckpt_path", str(path), "--data", "MNIST5k"]) == 2
    assert "training images" in printed(capsys)
    assert main(["predict", "--ckpt_path", str(path), "--data", "MNIST5k"]) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist/version_0/predictions.csv"))
    data = MNIST5k()
    data.setup("test")
    right = sum(int(row["class"]) == label for row, label in zip(rows, data.test.labels.tolist(), strict=True))
    assert right >= 970  # training images all, so this says that the file works, not how well
