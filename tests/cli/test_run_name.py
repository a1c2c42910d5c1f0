"""Folders are named after what runs: the config's name where it is true, else network, method and data."""

from pathlib import Path

import pytest

from bnn_lightning.cli import main
from bnn_lightning.cli.command_line import _DryParse
from bnn_lightning.cli.verbs.fit import Fit
from tests.helpers import LENET, ON_THE_COMMAND_LINE, ROOT

pytestmark = ON_THE_COMMAND_LINE
IVON = str(ROOT / "configs" / "lenet_ivon.yaml")


def name_of(*words):
    return _DryParse(Fit(), "fit", list(words)).config.name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("", "lenet_lrt"),
        ("--model.method LRT --model.method.prior_sigma 0.3 --data.train_subset 600 --data MNIST", "lenet_lrt"),
        ("--data MNIST5k", "lenet_lrt_mnist5k"),
        ("--model.method BBB --data FashionMNIST", "lenet_bbb_fashionmnist"),
        ("--model.method null", "lenet_deterministic_mnist"),
        ("--model.inference IVON", "lenet_lrt_ivon_mnist"),
        ("--model.method null --model.inference SWAG", "lenet_swag_mnist"),
        ("--model.network MLP", "mlp_lrt_mnist"),
        ("--model.method BBB --name lenet_lrt", "lenet_lrt"),
        (f"--config {IVON} --model.inference IVON", "lenet_ivon"),
    ],
)
def test_a_config_s_name_stays_until_flags_make_it_another_run(words, name):
    assert name_of("--config", LENET, *words.split()) == name


def test_a_printed_config_has_the_name_of_the_run_that_it_makes(capsys):
    words = ["--config", LENET, "--data", "MNIST5k"]
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *words, "--print_config"])
    Path("mine.yaml").write_text(capsys.readouterr().out)
    assert name_of("--config", "mine.yaml") == name_of(*words) == "lenet_lrt_mnist5k"
    assert name_of("--config", "mine.yaml", "--model.method", "BBB") == "lenet_bbb_mnist5k"


def test_users_own_names_and_files():
    Path("Yacht Prices.csv").write_text("a,b\n" + "\n".join(f"{n},{n % 7}" for n in range(60)))
    table = "data: {class_path: Table, init_args: {path: 'Yacht Prices.csv'}}\nmodel: {likelihood: Gaussian}\n"
    Path("mine.yaml").write_text(f"name: Boats\n{table}")
    # What the config leaves open can be filled in.
    assert name_of("--config", "mine.yaml", "--model.network", "TabularMLP") == "Boats"
    Path("other.csv").write_text(Path("Yacht Prices.csv").read_text())
    other = ["--model.network", "TabularMLP", "--data.path", "other.csv"]
    assert name_of("--config", "mine.yaml", *other) == "tabularmlp_deterministic_other"
    # A later config without a name counts like flags; one that has a name gives it.
    Path("method.yaml").write_text("model: {method: BBB}\n")
    both = ["--config", "mine.yaml", "--config", "method.yaml", "--model.network", "TabularMLP"]
    assert name_of(*both) == "tabularmlp_bbb_yacht-prices"
    Path("method.yaml").write_text("name: bayes\nmodel: {method: BBB}\n")
    assert name_of(*both) == "bayes"
