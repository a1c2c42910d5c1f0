"""Config files, and the flags that win over them."""

import re
from pathlib import Path

import pytest
import yaml

from bnn_lightning import IVON, Variational
from bnn_lightning.cli import main
from bnn_lightning.cli.parser import names_of
from bnn_lightning.core.methods import Method
from bnn_lightning.networks import Network
from tests.helpers import LENET, ON_THE_COMMAND_LINE, ROOT, SMALL, printed

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
pytestmark = ON_THE_COMMAND_LINE


def test_flags_win_over_a_config_wherever_they_stand(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--name", "mine", "--model.inference.lr=0.5", "--config", LENET, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["name"], config["model"]["inference"]["init_args"]["lr"]) == ("mine", 0.5)


LENET_IVON = str(ROOT / "configs" / "lenet_ivon.yaml")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # A rate of Adam, and the default "no schedule" of another inference, would train a network badly.
        (["--config", LENET, "--model.inference", "IVON"], IVON()),
        (["--config", LENET, "--model.inference.samples=2", "--model.inference=IVON"], IVON(samples=2)),
        (["--config", LENET_IVON], IVON(lr=0.15)),
        (["--config", LENET_IVON, "--model.inference", "IVON", "--model.inference.lr", "0.2"], IVON(lr=0.2)),
        (["--config", LENET_IVON, "--model.inference.lr", "0.2"], IVON(lr=0.2)),
        (["--model.network=LeNet", "--model.method=BBB", "--model.inference=bnn_lightning.IVON"], IVON()),
        (["--config", LENET_IVON, "--model.inference", "Variational"], Variational()),
        (["--model.network=LeNet", "--model.inference.lr=0.2"], Variational(lr=0.2)),
        (["--config", LENET, "--model.inference", "Variational", "--model.inference.samples=2"], None),
    ],
)
def test_an_inference_that_takes_anothers_place_begins_with_its_own_defaults(words, expected, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *words, "--print_config"])
    inference = yaml.safe_load(capsys.readouterr().out)["model"]["inference"]
    settings = inference["init_args"]
    if expected is None:  # the same one keeps what the config says of it
        assert settings["lr_schedule"]["class_path"] == "bnn_lightning.LinearDecay"
        assert settings["samples"] == 2
        return
    assert inference["class_path"] == f"bnn_lightning.{type(expected).__name__}"
    assert settings["samples"] == expected.samples
    assert settings["lr"] == (None if expected == Variational() else expected.lr)
    schedule = settings["lr_schedule"] and settings["lr_schedule"]["class_path"].rpartition(".")[2]
    assert schedule == (expected.lr_schedule and type(expected.lr_schedule).__name__)


def test_names_of_earlier_releases_are_taken_with_a_note(capsys):
    Path("old.yaml").write_text("data: MNIST5k\nmodel: {network: LeNet, lr: 0.25, kl_weight: 0.5}\n")
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config=old.yaml", "--model.test_samples", "7", "--print_config"])
    captured = capsys.readouterr()
    model = yaml.safe_load(captured.out)["model"]
    assert (model["inference"]["init_args"]["lr"], model["inference"]["init_args"]["kl_weight"]) == (0.25, 0.5)
    assert model["sampling"]["test_samples"] == 7
    assert captured.err.splitlines() == [
        "bnn: model.test_samples is called model.sampling.test_samples now.",
        "bnn: model.lr is called model.inference.lr now.",
        "bnn: model.kl_weight is called model.inference.kl_weight now.",
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(config):
    Path("table.csv").write_text("a,b,c\n" + "\n".join(f"{n},{n % 7},{n * n}" for n in range(60)))
    uci, angle = ["--data.path", "table.csv"], ["--data.train_subset", "600"]
    small = uci if "uci" in config.stem else angle if "angle" in config.stem else SMALL
    assert main(["fit", "--config", str(config), *small, "--trainer.fast_dev_run", "true"]) == 0


def test_configs_cover_networks_and_methods():
    names = {
        f"{net}_{method}"
        for net in ("lenet", "alexnet", "3conv3fc", "mlp")
        for method in ("bbb", "lrt", "deterministic")
    }
    names |= {f"{net}_{method}" for net in ("lenet300100", "lenet5caffe") for method in ("svd", "hvd")}
    names |= {"basecnn_deterministic", "batchnormmlp_deterministic"}
    names |= {f"lenet_{inference}" for inference in ("ivon", "laplace", "swag", "vbll")}
    names |= {"3conv3fc_ivon", "resnet20_ivon"}
    names |= {
        f"{net}_{method}"
        for net in ("resnet18", "resnet20", "vittiny", "wideresnet")
        for method in ("bbb", "deterministic")
    }
    names |= {f"mlp_uci_{name}" for name in ("bbb", "lrt", "ivon", "deterministic")} | {
        "lenet_angle_lrt",
        "lenet_angle_ivon",
    }
    words = [re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower() for name in names_of(Method)]
    names |= {f"cifarnet_{word}" for word in [*words, "deterministic"]}  # one for each method there is
    assert {path.stem for path in CONFIGS} == names
    for path in CONFIGS:
        assert yaml.safe_load(path.read_text())["name"] == path.stem


def test_each_part_switches_by_one_word():
    for words in (["--model.network", "MLP"], ["--model.method", "BBB"], ["--model.method", "null"]):
        assert main(["fit", "--config", LENET, *SMALL, *words, "--trainer.fast_dev_run", "true"]) == 0


def test_print_config_has_what_the_flags_say(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", LENET, "--model.method.prior_sigma", "0.3", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["method"]["init_args"]["prior_sigma"] == 0.3
    assert config["data"]["class_path"] == "bnn_lightning.data.MNIST"


def test_names_never_clash_with_torchvisions():
    import torchvision.models  # noqa: F401  has an AlexNet of its own

    assert names_of(Network) == NETWORKS.split(", ")
    words = ["--model.network", "AlexNet", "--trainer.fast_dev_run", "true"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0


NETWORKS = (
    "AlexNet, BaseCNN, BatchBALDNet, BatchNormMLP, CIFARNet, LeNet, LeNet300100, LeNet5Caffe, MLP, ResNet18, ResNet20, "
    "SKNet, TabularMLP, ThreeConvThreeFC, ViTTiny, WideResNet"
)


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        ("", "2,683,210"),
        ("--model.network.image_size 28", "2,395,210"),
        ("--data.image_size 28", "2,395,210"),
        ("--model.network.image_size 28 --data.image_size 28", "2,395,210"),
    ],
)
def test_the_size_of_images_is_that_of_the_network(words, parameters, capsys):
    command = ["fit", "--model.network", "MLP", *SMALL, "--trainer.fast_dev_run", "true"]
    assert main([*command, *words.split()]) == 0
    assert f"{parameters} parameters" in printed(capsys)


def test_two_sizes_of_images_are_refused(capsys):
    words = ["--model.network", "MLP", "--model.network.image_size", "28", *SMALL, "--data.image_size", "20"]
    assert main(["fit", *words]) == 2
    assert "image_size must be one for network and data, got 28 and 20; give one of them." in printed(capsys)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        # PyYAML keeps the last of two equal keys: a second group, pasted below, undid the first one in silence.
        ("trainer: {max_epochs: 2}\nname: a\ntrainer: {accelerator: cpu}\n", "got the key trainer in lines 1 and 3; "),
        ("data:\n  class_path: MNIST5k\n  init_args: {seed: 1, seed: 2}\n", "got the key seed in line 3; "),
        ("model: &all {init_args: *all}\n", "mine.yaml must have an end, got an anchor in line 1 with its own alias"),
        ("my-rate: &rate 0.01\nmodel: {inference: {init_args: {lr: *rate}}}\n", "--my-rate is not a setting; "),
    ],
)
def test_a_config_has_each_key_once_and_none_that_is_unknown(text, sentence, capsys):
    Path("mine.yaml").write_text(text)
    assert main(["fit", "--config", LENET, "--config", "mine.yaml", "--print_config"]) == 2
    assert sentence in printed(capsys)


def test_a_config_may_have_anchors_and_merged_keys(capsys):
    text = "data:\n  init_args: &all {val_split: 0.3}\n  class_path: MNIST5k\n"
    text += "model:\n  sampling: {<<: &few {val_samples: 2}, test_samples: 9}\n  network: LeNet\n"
    Path("mine.yaml").write_text(text)
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", LENET, "--config", "mine.yaml", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["init_args"]["val_split"] == 0.3
    assert (config["model"]["sampling"]["val_samples"], config["model"]["sampling"]["test_samples"]) == (2, 9)
