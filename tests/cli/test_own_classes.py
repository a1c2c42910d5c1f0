"""A user's own network, data, verb and pictures."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnn_lightning.cli import Session, Verb, main
from tests.helpers import LENET, ON_THE_COMMAND_LINE, SMALL, printed, table

pytestmark = ON_THE_COMMAND_LINE


class OwnNetwork(nn.Sequential):
    def __init__(self, width: int = 5):
        super().__init__(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


class OwnData(LightningDataModule):
    num_train = 40
    num_classes = 10

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(40, 1, 28, 28), torch.arange(40) % 10), batch_size=20)

    val_dataloader = test_dataloader = train_dataloader


def test_a_users_own_network_and_data_train_by_class_path(capsys):
    own = ["--model.network", f"{__name__}.OwnNetwork", "--model.network.width", "7", "--model.method", "LRT"]
    assert main(["fit", *own, "--data", f"{__name__}.OwnData", "--trainer.max_epochs", "1", "--name", "own"]) == 0
    assert main(["test", "--ckpt_path", "checkpoints/own/version_0/best.ckpt"]) == 0
    assert "OwnData, 40 images:" in printed(capsys)


def test_our_network_trains_on_a_users_own_data():
    words = ["--model.network", "MLP", "--model.network.image_size", "28", "--trainer.fast_dev_run", "true"]
    assert main(["fit", *words, "--data", f"{__name__}.OwnData"]) == 0


class Count(Verb):
    """Counts parameters."""

    needs_checkpoint = False

    def run(self, session: Session, twice: bool = False) -> None:
        """Counts.

        Args:
            twice: whether each parameter counts twice.
        """
        count = sum(parameter.numel() for parameter in session.model.parameters())
        session.print(f"{(1 + twice) * count} parameters, for {session.run.logs}")


def test_a_users_own_verb_runs_by_class_path(run, capsys):
    verb = f"{__name__}.Count"
    assert main([verb, "--config", LENET, *SMALL, "--twice", "true"]) == 0
    assert "246824 parameters, for lightning_logs/lenet_lrt/version_1" in printed(capsys)
    assert main([verb, "--ckpt_path", str(run / "best.ckpt")]) == 0
    assert f"123412 parameters, for {Path('lightning_logs/lenet_lrt/version_0').resolve()}" in printed(capsys)
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    text = printed(capsys)
    assert text.startswith(f"usage: bnn {verb} [--ckpt_path FILE] [--config FILE] [options]\n\nA user's own network")
    assert "Whether each parameter counts twice. (default: False)" in text


class SizedNetwork(nn.Sequential):
    def __init__(self, image_size: int = 28, in_channels: int = 1, num_classes: int = 10):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


def test_a_users_network_is_given_the_size_of_the_images():
    words = ["fit", "--model.network", f"{__name__}.SizedNetwork", *SMALL, "--trainer.fast_dev_run", "true"]
    assert main(words) == 0
    assert main([*words, "--data.image_size", "20"]) == 0


@pytest.mark.slow
def test_a_users_pictures_go_from_training_to_decisions(capsys):
    generator = torch.Generator().manual_seed(0)
    for part, count in (("photos", 30), ("elsewhere", 5)):
        for label, name in enumerate(("dark", "light")):
            for index in range(count):
                pixels = torch.randint(200 * label, 200 * label + 56, (32, 32), generator=generator, dtype=torch.uint8)
                file = Path(part, name, f"{index}.png")
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.numpy()).save(file)
    words = ["fit", "--config", LENET, "--data", "ImageFolder", "--data.root", "photos", "--trainer.max_epochs", "2"]
    assert main([*words, "--name", "own", "--trainer.precision", "64-true"]) == 0
    best = "checkpoints/own/version_0/best.ckpt"
    ood = "[{class_path: ImageFolder, init_args: {root: elsewhere}}]"
    assert main(["test", "--ckpt_path", best, "--data.ood", ood]) == 0
    assert "Told from ImageFolder:" in printed(capsys)
    assert main(["test", "--ckpt_path", best, "--data.ood", ood.replace("elsewhere", "photos")]) == 2
    assert "--data.ood must be images from elsewhere, got ImageFolder" in printed(capsys)
    # Without --data the pictures of the test set, not those that it was trained on.
    assert main(["predict", "--ckpt_path", best]) == 0
    assert len(table(Path("lightning_logs/own/version_0/predictions.csv"))) == 12
    assert main(["predict", "--ckpt_path", best, "--data.root", "photos"]) == 0
    assert len(table(Path("lightning_logs/own/version_0/predictions_1.csv"))) == 60
