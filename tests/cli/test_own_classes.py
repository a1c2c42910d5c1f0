"""A user's own network, data, verb and pictures."""

import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnn_lightning.checkpoints.record import Record
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


def own_module(name):
    """A file of somebody's own with a network, in a folder of its own."""
    folder = Path("project")
    folder.mkdir()
    (folder / f"{name}.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self, width: int = 5):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))\n"
    )
    return folder


def forget(monkeypatch, *names):
    """As in another process: what has been imported is not known any more."""
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_network_of_the_current_folder_is_found_again(monkeypatch, capsys):
    folder, path = own_module("mynet_here"), list(sys.path)
    monkeypatch.chdir(folder)
    words = ["fit", "--model.network", "mynet_here.Net", *SMALL, "--trainer.max_epochs", "1", "--name", "own"]
    assert main(words) == 0
    assert "bnn: mynet_here.Net is imported from mynet_here.py\n" in printed(capsys)
    assert sys.path == path
    forget(monkeypatch, "mynet_here")
    best = "checkpoints/own/version_0/best.ckpt"
    assert main(["test", "--ckpt_path", best]) == 0
    assert "bnn: mynet_here.Net is imported from mynet_here.py\n" in printed(capsys)
    code = Record.read(best).code
    assert code == {"mynet_here.Net": str(Path("mynet_here.py").resolve())}


def test_no_folder_is_looked_in_that_nobody_named(monkeypatch, capsys):
    folder = own_module("mynet_there").resolve()
    words = ["fit", "--model.network", "mynet_there.Net", *SMALL, "--trainer.max_epochs", "1", "--name", "own"]
    assert main(words) == 2
    assert "No module named 'mynet_there'; --code FOLDER says where a module of your own is." in printed(capsys)
    assert main([*words, "--code", "project"]) == 0
    assert "bnn: mynet_there.Net is imported from project/mynet_there.py\n" in printed(capsys)
    forget(monkeypatch, "mynet_there")
    predict = ["predict", "--ckpt_path", "checkpoints/own/version_0/best.ckpt"]
    assert main(predict) == 2  # although the checkpoint says where it was
    file = folder / "mynet_there.py"
    assert f"It was in {file} when the checkpoint was saved; --code project finds it there." in printed(capsys)
    assert "mynet_there" not in sys.modules
    assert main([*predict, "--code", "project"]) == 0


def test_paths_are_expanded_wherever_they_are_given(monkeypatch, capsys):
    home = Path.cwd() / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RUNS", str(home / "runs"))
    home.mkdir()
    Path("home/own.yaml").write_text("trainer: {default_root_dir: $RUNS}\nmodel: {network: LeNet}\ndata: MNIST5k\n")
    words = ["--config", "~/own.yaml", *SMALL, "--trainer.max_epochs", "1", "--name", "run", "--model.method"]
    logs = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "~/logs"]
    assert main(["fit", *words, "null", *logs]) == 0
    best = "$RUNS/checkpoints/run/version_0/best.ckpt"
    assert (home / "logs" / "lightning_logs").is_dir()
    assert main(["fit", *words, "LRT", "--model.init_from", best, "--seed_everything", "1"]) == 0
    other = best.replace("version_0", "version_1")
    assert main(["fit", *words, "LRT", "--model.init_from=~/runs/checkpoints/run/version_0/last.ckpt"]) == 0
    members = f"[{best.replace('version_0', 'version_2')}]"
    assert main(["ensemble", f"--ckpt_path={other}", "--members", members, "--output", "~/both.ckpt"]) == 0
    assert (home / "both.ckpt").is_file()
    assert {path.name for path in Path().iterdir()} == {"home"}
    assert main(["test", "--ckpt_path", "$NOWHERE/a.ckpt"]) == 2
    assert "there is no file $NOWHERE/a.ckpt" in printed(capsys)


def test_our_network_trains_on_a_users_own_data():
    words = ["--model.network", "MLP", "--model.network.image_size", "28", "--trainer.fast_dev_run", "true"]
    assert main(["fit", *words, "--data", f"{__name__}.OwnData"]) == 0


class OddLater(LightningDataModule):
    """Sets of two batches whose last label, which the first batch does not show, has no output; or no numbers."""

    num_train = 40
    num_classes = 10

    def __init__(self, train: int = 9, val: int = 9, test: int = 9, nan: bool = False):
        super().__init__()
        self.last, self.nan = {"train": train, "val": val, "test": test}, nan

    def batches(self, name):
        images, labels = torch.randn(40, 1, 28, 28), torch.arange(40) % 10
        labels[-1] = self.last[name]
        images[-1] = torch.nan if self.nan else 0.0
        return DataLoader([*zip(images, labels, strict=True)], 20)  # no labels at hand, and the batch size by position

    def train_dataloader(self):
        return self.batches("train")

    def val_dataloader(self):
        return self.batches("val")

    def test_dataloader(self):
        return self.batches("test")

    predict_dataloader = test_dataloader


def test_what_the_first_batch_does_not_show_is_told_in_a_sentence(capsys):
    fit = ["fit", "--model.network", f"{__name__}.OwnNetwork", "--data", f"{__name__}.OddLater", "--name", "odd"]
    fit += ["--trainer.max_epochs", "1"]
    for label in ("11", "-100"):
        assert main([*fit, f"--data.train={label}"]) == 2
        said = f"labels must be numbers of the network's outputs, which begin at 0, got {label} in a training batch."
        assert said in printed(capsys)
    assert main([*fit, "--data.val", "12"]) == 2
    assert "labels must be from 0 to 9 for a network with 10 outputs, got 0 to 12." in printed(capsys)
    assert main(fit) == 0
    test = ["test", "--ckpt_path", "checkpoints/odd/version_3/best.ckpt"]
    assert main([*test, "--data.test", "-1"]) == 2
    assert "labels must be from 0 to 9 for a network with 10 outputs, got -1 to 9." in printed(capsys)
    assert main([*test, "--data.nan", "true"]) == 0
    assert "1 of 40 predictions are nan" in printed(capsys)
    assert main(["predict", *test[1:]]) == 2
    assert "predict_dataloader must give its loader the batch_size by name" in printed(capsys)


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
    assert "246824 parameters, for lightning_logs/lenet_lrt_mnist5k/version_1" in printed(capsys)
    assert main([verb, "--ckpt_path", str(run / "best.ckpt")]) == 0
    assert f"123412 parameters, for {Path('lightning_logs/lenet_lrt_mnist5k/version_0').resolve()}" in printed(capsys)
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
    assert "Told from elsewhere:" in printed(capsys)
    assert main(["test", "--ckpt_path", best, "--data.ood", ood.replace("elsewhere", "photos")]) == 2
    assert "--data.ood must be images from elsewhere, got photos for tests on photos" in printed(capsys)
    # Without --data the pictures of the test set, not those that it was trained on.
    assert main(["predict", "--ckpt_path", best]) == 0
    assert len(table(Path("lightning_logs/own/version_0/predictions.csv"))) == 12
    assert main(["predict", "--ckpt_path", best, "--data.root", "photos"]) == 0
    assert len(table(Path("lightning_logs/own/version_0/predictions_1.csv"))) == 60


def test_a_run_does_not_go_on_with_other_classes(capsys):
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for number in range(20):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(Path("photos", name, f"{number}.png"))
    words = ["--model.network", "LeNet", "--data", "ImageFolder", "--data.root", "photos", "--name", "pets"]
    assert main(["fit", *words, "--trainer.max_epochs", "1"]) == 0
    Path("photos/dog").rename("photos/ape")
    capsys.readouterr()
    last = "checkpoints/pets/version_0/last.ckpt"
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "2"]) == 2
    assert (
        "--data ImageFolder: a run goes on with its classes, cat, dog, got ape, cat; for others begin a new one"
        in printed(capsys)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def forward(:\n", "SyntaxError (mynet_fails.py, line 1): invalid syntax"),
        ("\nlayers = torch.nn\n", "NameError (mynet_fails.py, line 2): name 'torch' is not defined"),
        (
            "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        1 / 0\n",
            "ZeroDivisionError (mynet_fails.py, line 6): division by zero",
        ),
    ],
)
def test_what_a_file_of_ones_own_raises_is_told_with_its_line(text, said, monkeypatch, capsys):
    Path("mynet_fails.py").write_text(text)
    assert main(["fit", "--model.network", "mynet_fails.Net", *SMALL]) == 2
    assert f"bnn: error: {said}. --debug shows the traceback.\n" in printed(capsys)
    assert not Path("lightning_logs").exists()
    forget(monkeypatch, "mynet_fails")


def test_an_optimizer_that_refuses_the_gradients_is_told_in_a_sentence(capsys):
    words = ["fit", *SMALL, "--model.network", "LeNet", "--model.inference", "Variational"]
    assert main([*words, "--model.inference.optimizer", "torch.optim.SparseAdam"]) == 2
    assert "bnn: error: SparseAdam does not support dense gradients" in printed(capsys)


@pytest.mark.filterwarnings("ignore")
def test_more_processes_than_examples_are_refused(capsys):
    for label, name in enumerate(("dark", "light")):
        for number in range(4):
            file = Path("photos", name, f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (32, 32), 150 * label + number).save(file)
    words = ["fit", "--config", LENET, "--data", "ImageFolder", "--data.root", "photos", "--data.val_split", "0.3"]
    assert main([*words, "--trainer.max_epochs", "1", "--trainer.devices", "2"]) == 2
    sentence = "bnn: error: --trainer.devices must be at most 1, the number of examples that select, got 2."
    assert sentence in printed(capsys)
