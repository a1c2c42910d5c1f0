"""Networks as people have them on the command line: what the data fill in, and what is told before training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli import main
from tests.helpers import FOR_NUMBERS, SMALL, printed

pytestmark = FOR_NUMBERS
ONCE = ["--trainer.max_epochs", "1", "--name", "net", "--model.sampling.test_samples", "2"]
LAST = "checkpoints/net/version_0/last.ckpt"


def fit(network, *words):
    return main(["fit", "--model.network", network, "--model.method", "LRT", *SMALL, *ONCE, *words])


def convolution(in_channels, num_classes=10):
    layers = nn.Conv2d(in_channels, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(16, num_classes))


def passes_on(depth: int = 1, **kwargs) -> nn.Module:
    """A function whose arguments are known to another one alone."""
    return _made(kwargs)


def _made(settings):
    return convolution(settings["in_chans"], settings["num_classes"])


def sets_itself(**kwargs: Any) -> nn.Module:
    """A function that sets an argument of the one behind it, and refuses to be told otherwise."""
    if kwargs.setdefault("width", 8) != 8:
        raise ValueError(f"width must be 8, got {kwargs['width']}.")
    return _wide(**kwargs)


def _wide(in_channels: int = 1, num_classes: int = 1000, width: int = 2, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    layers = nn.Conv2d(in_channels, width, 3, stride=2), act(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


class Colour(nn.Sequential):
    def __init__(self, num_classes: int = 7):
        super().__init__(*convolution(3, num_classes))


class Grey(nn.Sequential):
    def __init__(self):
        super().__init__(*convolution(1))


class Lazy(nn.Sequential):
    def __init__(self, num_classes: int = 7):
        super().__init__(nn.LazyConv2d(4, 3), nn.MaxPool2d(8), nn.Flatten(), nn.LazyLinear(num_classes))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.norm, self.fc = nn.Parameter(torch.zeros(1, 784)), nn.LayerNorm(784), nn.Linear(784, 10)

    def forward(self, x):
        return self.fc(self.norm(x.flatten(1)) + self.token)


class Mistaken(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(784, undefined)  # noqa: F821


class Seven(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 7))


@pytest.mark.parametrize("network", ["passes_on", "sets_itself", "Lazy", "Colour"])
def test_channels_classes_and_sizes_come_from_the_data(network, capsys):
    assert fit(f"{__name__}.{network}") == 0
    assert main(["test", "--ckpt_path", LAST, "--trainer.limit_test_batches", "1"]) == 0
    state = Record.read(LAST).network_state
    first, last = state["0.weight.mu"].shape, [value for name, value in state.items() if name.endswith("weight.mu")][-1]
    assert first[1] == (3 if network == "Colour" else 1)
    assert len(last) == 10
    assert "Traceback" not in printed(capsys)


def test_a_network_of_torchvision_by_its_path_alone():
    words = ["--data.train_subset", "40", "--data.batch_size", "16", "--trainer.limit_val_batches", "1"]
    assert fit("torchvision.models.resnet18", *words) == 0
    record = Record.read(LAST)
    assert record.network_state["fc.weight.mu"].shape == (10, 512)
    assert record.data["channels"] == 3  # grey digits, for a network that takes three channels
    limits = ["--trainer.limit_predict_batches", "1", "--data.eval_batch_size", "4"]
    assert main(["predict", "--ckpt_path", LAST, *limits]) == 0


@pytest.mark.parametrize(
    ("network", "words", "sentence"),
    [
        ("Grey", ["--data.channels", "3"], "--data.channels 1 converts images that come with 3."),
        ("Seven", [], "--model.network must have 10 outputs, one for each class of the data, got 7;"),
        ("Mistaken", [], "NameError (test_networks.py, line "),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_nothing_is_written(network, words, sentence, capsys):
    assert fit(f"{__name__}.{network}", *words) == 2
    said = printed(capsys)
    assert sentence in said
    assert "Traceback" not in said
    assert not any(Path(folder).exists() for folder in ("checkpoints", "lightning_logs"))


def test_what_is_not_random_stands_in_the_second_line(capsys):
    assert fit(f"{__name__}.Tokens", "--trainer.fast_dev_run", "true") == 0
    said = printed(capsys)
    assert "Random: 7,850 weights and biases; deterministic: Tokens 784, LayerNorm 1,568\n" in said


def test_a_pretrained_body_that_stays_as_it_is(capsys):
    torch.manual_seed(0)
    trained = Colour(1000)
    torch.save({"state_dict": {f"module.{name}": value for name, value in trained.state_dict().items()}}, "body.pt")
    assert fit(f"{__name__}.Colour", "--model.init_from", "body.pt", "--model.freeze", "0") == 0
    assert "Frozen: 112 of the parameters\n" in printed(capsys)
    kept = Record.read(LAST).network_state
    assert torch.equal(kept["0.weight"], trained[0].weight)
    assert "4.weight.mu" in kept
    assert main(["test", "--ckpt_path", LAST, "--trainer.limit_test_batches", "1"]) == 0


class Versioned(nn.Sequential):
    """Reads the version of the class that has saved it, as torchvision's MNASNet does."""

    _version = 2

    def __init__(self, num_classes: int = 10):
        super().__init__(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(49, num_classes))

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        assert local_metadata.get("version") == 2
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def test_a_network_that_reads_its_version_is_trained_and_tested():
    assert fit(f"{__name__}.Versioned") == 0
    assert fit(f"{__name__}.Versioned", "--seed_everything", "1") == 0
    second = LAST.replace("version_0", "version_1")
    assert main(["ensemble", "--ckpt_path", LAST, "--members", f"[{second}]", "--output", "both.ckpt"]) == 0
    assert main(["laplace", "--ckpt_path", LAST, "--structure", "diag", "--output", "laplace.ckpt"]) == 0
    for file in (LAST, "both.ckpt", "laplace.ckpt"):
        assert main(["test", "--ckpt_path", file, "--trainer.limit_test_batches", "1"]) == 0
