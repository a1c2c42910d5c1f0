"""The command line, run as its user does but in this process."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnn_lightning import BayesianClassifier, LeNet, Sampler, log_predictive
from bnn_lightning.cli import main
from bnn_lightning.cli.parser import names_of, one_sentence
from bnn_lightning.cli.preparation import _gives_data
from bnn_lightning.core.methods import Method
from bnn_lightning.data import MNIST5k
from bnn_lightning.evaluation.suite import OOD_SCORES
from bnn_lightning.likelihoods.categorical.calibration import Calibration
from bnn_lightning.networks import Network
from bnn_lightning.training.checkpoints import KEY, epochs_done, read_checkpoint, without_training_state
from tests.helpers import ROOT, write_idx

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
LENET = str(ROOT / "configs" / "lenet_lrt.yaml")
SMALL = ["--data", "MNIST5k", "--data.train_subset", "600"]

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # main() sets filters of its own, which pytest's would undo
    pytest.mark.usefixtures("in_an_empty_folder"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which a LeNet has been trained for two epochs; tests work in a copy."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "2"]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return Path("checkpoints/lenet_lrt/version_0")


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def said(capsys):
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_fit_writes_the_paired_folders_curves_and_a_table(run, capsys):
    logs = Path("lightning_logs/lenet_lrt/version_0")
    assert {path.name for path in run.iterdir()} == {"best.ckpt", "last.ckpt"}
    rows = table(logs / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for row in rows:
        # Two batches of 480 images; an epoch has its validation too. Both are rounded to two digits.
        assert 0 < 2 * float(row["ms_per_batch"]) / 1000 < float(row["seconds"]) + 0.01
    events = EventAccumulator(str(logs)).Reload()
    tags = set(events.Tags()["scalars"])
    wanted = {"lr", "train/kl_weight", *(f"{part}/{name}" for part in ("train", "val") for name in ("nll", "accuracy"))}
    assert wanted | {f"{part}/elbo_per_n" for part in ("train", "val")} <= tags
    assert len(events.Scalars("train/nll")) == 2


def test_lines_without_a_terminal_and_no_noise(capsys):
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1"]) == 0
    captured = capsys.readouterr()
    lines = [line for line in captured.out.splitlines() if not line.startswith("Freed memory is kept")]  # by glibc
    assert re.match(r"LeNet, LRT, MNIST5k: 123,412 parameters, N = 480, 1 epochs, seed 0", lines[0])
    assert re.match(
        r"epoch 1/1  nll \d.*  kl/N .* \(weight 0\.00\)  elbo/N -.*  accuracy .* %  val nll .* s$", lines[1]
    )
    assert lines[-1] == "Next:        bnn test --ckpt_path checkpoints/lenet_lrt/version_0/best.ckpt"
    assert "tempered, posterior not converged" in captured.out
    assert captured.err == ""
    assert not re.search("litlogger|Tip|TPU|GPU available", captured.out)


def test_the_allocator_is_tuned_and_says_so_unless_it_is_left_alone(capsys, monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    quick = ["fit", "--config", LENET, *SMALL, "--trainer.fast_dev_run", "true"]
    called = []
    monkeypatch.setattr("bnn_lightning.cli.preparation.keep_freed_memory", lambda: called.append(1) or True)
    assert main(quick) == 0
    assert said(capsys).count("Freed memory is kept for the next step; --keep_memory false gives it back.") == 1
    assert main([*quick, "--keep_memory", "false"]) == 0
    assert "Freed memory" not in said(capsys)
    assert len(called) == 1


def test_a_compiled_run_ends_in_a_checkpoint_that_needs_no_compiler(capsys, monkeypatch):
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1", "--model.compile", "true"]) == 0
    last = "checkpoints/lenet_lrt/version_0/last.ckpt"
    monkeypatch.setattr(
        "bnn_lightning.training.module.check_compiler", lambda device: pytest.fail("compiled to predict")
    )
    assert main(["predict", "--ckpt_path", last, "--model.compile", "false"]) == 0


def test_a_checkpoint_alone_can_be_tested(run, capsys):
    assert main(["test", "--ckpt_path", str(run / "best.ckpt")]) == 0
    out = said(capsys)
    results = json.loads(Path("lightning_logs/lenet_lrt/version_0/test_mnist5k_best.json").read_text())
    assert results["images"] == 1000
    assert list(results["predictions"]) == ["25 weight draws", "1 weight draw", "mean weights"]
    assert "posterior not converged" in results["marks"]
    assert results["training"]["num_train"] == 480
    assert "Note: posterior not converged." in out
    rows = table(Path("lightning_logs/lenet_lrt/version_0/test_mnist5k_best.csv"))
    assert float(rows[0]["accuracy"]) == results["predictions"]["25 weight draws"]["accuracy"]
    assert float(rows[0]["elbo_per_n"]) == results["training"]["elbo_per_n"]


def test_flags_win_over_the_checkpoint(run, capsys):
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), "--model.test_samples", "50"]) == 0
    out = said(capsys)
    assert "50 weight draws" in out
    assert "calibrated with 25 samples" in out


def test_flags_win_over_a_config_wherever_they_stand(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--name", "mine", "--model.lr=0.5", "--config", LENET, "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["name"], config["model"]["lr"]) == ("mine", 0.5)


def test_testing_twice_gives_the_same_numbers(run, capsys):
    for _ in range(2):
        assert main(["test", "--ckpt_path", str(run / "best.ckpt")]) == 0
    logs = Path("lightning_logs/lenet_lrt/version_0")
    texts = [(logs / f"test_mnist5k_best{ending}.json").read_text() for ending in ("", "_1")]
    assert texts[0] == texts[1]


def test_validate(run, capsys):
    assert main(["validate", "--ckpt_path", str(run / "last.ckpt")]) == 0
    out = said(capsys)
    assert "MNIST5k, 60 images:" in out
    assert re.search(r"\n +5 local draws\naccuracy +\d+\.\d\d %\n", out)


def test_predict_writes_a_row_for_each_image(run, capsys):
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt")]) == 0
    rows = table(Path("lightning_logs/lenet_lrt/version_0/predictions.csv"))
    assert len(rows) == 1000
    assert rows[7]["name"] == rows[7]["class"]
    assert 0 <= float(rows[0]["mutual_information"]) <= float(rows[0]["entropy"])


def test_predict_on_a_users_pictures(run, capsys):
    Path("photos").mkdir()
    Image.new("RGB", (40, 30), (200, 10, 10)).save("photos/a.png")
    Path("photos/b.png").write_bytes(b"nothing")
    best = str(run / "best.ckpt")
    assert main(["predict", "--ckpt_path", best, "--data", "ImageFolder", "--data.root", "photos"]) == 0
    rows = table(Path("lightning_logs/lenet_lrt/version_0/predictions.csv"))
    assert [row["file"] for row in rows] == ["photos/a.png", "photos/b.png"]
    assert rows[0]["error"] == ""
    assert "cannot identify image file" in rows[1]["error"]


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
    config = read_checkpoint("checkpoints/lenet_lrt/version_0/last.ckpt")[KEY]["config"]
    assert config["trainer"]["gradient_clip_val"] == 0.5
    assert len(config["trainer"]) > 30
    assert "weights_only" not in config
    assert config["data"]["init_args"]["train_subset"] == 600


def test_best_is_chosen_after_the_warm_up_by_validation_nll():
    # Weight 0 makes the first epochs' NLL the lowest there is; they are no candidates all the same.
    args = ["--model.kl_weight.length", "3", "--model.method.prior_sigma", "0.01", "--model.lr", "0.01"]
    assert main(["fit", "--config", LENET, *SMALL, *args, "--trainer.max_epochs", "6"]) == 0
    rows = table(Path("lightning_logs/lenet_lrt/version_0/metrics.csv"))
    settled = [(float(row["val/nll"]), int(row["epoch"])) for row in rows if float(row["train/kl_weight"]) == 1]
    assert len(settled) == 3
    best = read_checkpoint("checkpoints/lenet_lrt/version_0/best.ckpt")
    assert epochs_done(best) == min(settled)[1]


def test_without_hold_out_the_last_epoch_is_the_result(capsys):
    assert main(["fit", "--config", LENET, *SMALL, "--data.val_split", "0", "--trainer.max_epochs", "1"]) == 0
    assert [path.name for path in Path("checkpoints/lenet_lrt/version_0").iterdir()] == ["last.ckpt"]
    assert "bnn test --ckpt_path checkpoints/lenet_lrt/version_0/last.ckpt" in said(capsys)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_runs(config):
    assert main(["fit", "--config", str(config), *SMALL, "--trainer.fast_dev_run", "true"]) == 0


def test_configs_cover_networks_and_methods():
    names = {
        f"{net}_{method}"
        for net in ("lenet", "alexnet", "3conv3fc", "mlp")
        for method in ("bbb", "lrt", "deterministic")
    }
    names |= {f"{net}_{method}" for net in ("lenet300100", "lenet5caffe") for method in ("svd", "hvd")}
    names |= {"basecnn_deterministic", "batchnormmlp_deterministic"}
    words = [re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower() for name in names_of(Method)]
    names |= {f"cifarnet_{word}" for word in [*words, "deterministic"]}  # one for each method there is
    assert {path.stem for path in CONFIGS} == names
    for path in CONFIGS:
        assert yaml.safe_load(path.read_text())["name"] == path.stem


def test_each_part_switches_by_one_word():
    for words in (["--model.network", "MLP"], ["--model.method", "BBB"], ["--model.method", "null"]):
        assert main(["fit", "--config", LENET, *SMALL, *words, "--trainer.fast_dev_run", "true"]) == 0


def test_print_config(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", LENET, "--model.method.prior_sigma", "0.3", "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["method"]["init_args"]["prior_sigma"] == 0.3
    assert config["data"]["class_path"] == "bnn_lightning.data.MNIST"


def test_help_is_short(capsys):
    for verb in ("fit", "test"):
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        text = capsys.readouterr().out
        assert len(text.splitlines()) < 80
        assert "--model.test_samples" in text
        assert "MNIST5k" in text


class OwnNetwork(nn.Sequential):
    def __init__(self, width: int = 5):
        super().__init__(nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


class OwnData(LightningDataModule):
    num_train = 40
    num_classes = 10

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(40, 1, 28, 28), torch.arange(40) % 10), batch_size=20)

    val_dataloader = test_dataloader = train_dataloader


def test_a_users_own_network_and_data_by_class_path(capsys):
    own = ["--model.network", f"{__name__}.OwnNetwork", "--model.network.width", "7", "--model.method", "LRT"]
    assert main(["fit", *own, "--data", f"{__name__}.OwnData", "--trainer.max_epochs", "1", "--name", "own"]) == 0
    assert main(["test", "--ckpt_path", "checkpoints/own/version_0/best.ckpt"]) == 0
    assert "OwnData, 40 images:" in said(capsys)


def test_names_never_clash_with_torchvisions():
    import torchvision.models  # noqa: F401  has an AlexNet of its own

    assert names_of(Network) == NETWORKS.split(", ")
    words = ["--model.network", "AlexNet", "--trainer.fast_dev_run", "true"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0


NETWORKS = "AlexNet, BaseCNN, BatchNormMLP, CIFARNet, LeNet, LeNet300100, LeNet5Caffe, MLP, SKNet, ThreeConvThreeFC"
# ruff: noqa: E501
MISTAKES = [
    ("--model.network LeNett", f"--model.network does not know LeNett; did you mean LeNet? It can be {NETWORKS}, or the class path of your own."),
    ("--model.network nowhere.Net", "--model.network names nowhere.Net, which cannot be imported: No module named 'nowhere'."),
    ("--model.network.activation tanh", "--model.network.activation must be one of 'relu', 'softplus', 'sigmoid', got tanh."),
    ("--model.method Flipput", "--model.method does not know Flipput; did you mean Flipout? It can be BBB, Flipout, GaussianS, GaussianW, HierarchicalA, HierarchicalB, LRT, MCDropout, Sparse, VariationalA, VariationalB, or the class path of your own."),
    ("--model.method.prior_sigma -1", "--model.method.prior_sigma must be a positive standard deviation such as 0.1, got -1.0."),
    ("--model.method.prior_sigma x", "--model.method.prior_sigma must be a number, got x."),
    ("--model.method.sigma 1", "--model.method.sigma is not a setting; bnn fit --model.method.help NAME lists those of NAME."),
    ("--model.lr abc", "--model.lr must be a number, got abc."),
    ("--model.lr -1", "--model.lr must be a positive number, got -1.0."),
    ("--model.kl_weight -1", "--model.kl_weight must be a number from 0 up, or a schedule, got -1.0."),
    ("--data.batch_size x", "--data.batch_size must be a whole number, got x."),
    ("--data.val_split 2", "--data.val_split must be from 0 to below 1, such as 0.2, got 2.0."),
    ("--data.image_size 28", "--data.image_size must be 32 for LeNet, got 28; leave it out, and images are resized."),
    ("--data.train_subset 9999", "--data.train_subset must lie within the 4000 training images, got 9999."),
    ("--trainer.max_epochs x", "--trainer.max_epochs must be a whole number, got x."),
    ("--trainer.max_epochs -1", "--trainer.max_epochs must be 1 or more, for schedules need its length, got -1."),
    (
        "--trainer.precision 16-mixed --trainer.accelerator cpu",
        "--trainer.precision 16-mixed needs a GPU: no CPU computes in fp16; bf16-mixed is its like there.",
    ),
    (
        "--trainer.precision bf16-true",
        "--trainer.precision bf16-true is too coarse for rho: at -5 its next number is 0.004 or more away, and Adam moves "
        "it by 0.001 a step; bf16-mixed keeps parameters in float32.",
    ),
    ("--model.lr null", "--model.lr must be a number, got None."),
    ("--model.kl_weight.length null", "--model.kl_weight.length must not be null; leave it out for its default."),
    ("--data.batch_size null", "--data.batch_size must not be null; leave it out for its default."),
    ("--model.network os.system", f"--model.network must be the name of a Network, such as {', '.join(names_of(Network))}, got os.system."),
    ("--seed_everything -1", "--seed_everything must be from 0 to 4294967295, got -1."),
    ("--save_every_n_steps 0", "--save_every_n_steps must be 1 or more, or null, got 0."),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_mistakes_get_one_sentence_and_leave_nothing_behind(words, sentence, capsys):
    assert main(["fit", "--config", LENET, *SMALL, *words.split()]) == 2
    assert said(capsys) == f"bnn: error: {sentence}\n"
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "fitt",
            "invalid choice: 'fitt' (choose from 'fit', 'validate', 'test', 'predict', 'ensemble', 'prune', 'export')",
        ),
        ("fit", "--model.network and --data missing; start from a config, such as bnn fit --config"),
        ("fit --config nowhere.yaml", "--config: File does not exist"),
        ("test", "--ckpt_path is missing: bnn test --ckpt_path checkpoints/NAME/version_0/best.ckpt."),
        ("test --ckpt_path nowhere.ckpt", "--ckpt_path: there is no file nowhere.ckpt."),
    ],
)
def test_other_mistakes(words, sentence, capsys):
    assert main(words.split()) == 2
    text = said(capsys)
    assert sentence in text
    assert len(text.splitlines()) == 1


def test_a_checkpoint_is_not_tested_on_images_it_was_trained_on(run, capsys):
    checkpoint = read_checkpoint(run / "best.ckpt")
    checkpoint[KEY]["data"]["name"] = "MNIST"
    torch.save(checkpoint, "other.ckpt")
    assert main(["test", "--ckpt_path", "other.ckpt"]) == 2
    assert "its images are MNIST training images, which this checkpoint may have been trained on" in said(capsys)
    assert main(["predict", "--ckpt_path", "other.ckpt"]) == 0


def test_a_hold_out_that_has_the_training_images_is_refused(run, capsys):
    assert main(["validate", "--ckpt_path", str(run / "last.ckpt"), "--data", "MNIST", "--data.root", "mnist"]) == 2
    assert "--data must be the checkpoint's, MNIST5k, got MNIST, whose hold-out has its training images." in said(
        capsys
    )


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("predict --data.eval_batch_size 64", False),
        ("predict --data.root photos", True),
        ("predict --data.init_args.root=photos", True),
        ("predict --data=MNIST", True),
        ("predict --config trainer.yaml", False),
        ("predict --config=data.yaml", True),
        ("predict -c data.yaml", True),
        ("predict --config nowhere.yaml", True),
    ],
)
def test_what_says_which_images_are_predicted(words, given):
    Path("trainer.yaml").write_text("trainer: {accelerator: cpu}")
    Path("data.yaml").write_text("data: MNIST")
    assert _gives_data(words.split()) == given


def test_a_checkpoint_is_not_tested_on_other_classes(run, capsys):
    rows = torch.randint(0, 256, (50, 28, 28)).numpy()
    write_idx(Path("data/notMNIST/t10k-images-idx3-ubyte"), rows)
    write_idx(Path("data/notMNIST/t10k-labels-idx1-ubyte"), torch.arange(50).numpy() % 10)
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), "--data", "NotMNIST"]) == 2
    assert "NotMNIST has the classes A, B, ... J, but the checkpoint was trained on MNIST5k with 0, 1, ... 9" in said(
        capsys
    )
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), "--data", "NotMNIST"]) == 0


def test_checkpoint_of_another_version(run, capsys):
    checkpoint = read_checkpoint(run / "best.ckpt")
    checkpoint[KEY]["format_version"] = 99
    torch.save(checkpoint, "other.ckpt")
    assert main(["test", "--ckpt_path", "other.ckpt"]) == 2
    assert "other.ckpt has format version 99, this bnn_lightning reads version 1" in said(capsys)


def test_a_checkpoint_without_training_state_still_works(run, capsys):
    small = without_training_state(read_checkpoint(run / "best.ckpt"))
    torch.save(small, "small.ckpt")
    assert Path("small.ckpt").stat().st_size < 0.5 * (run / "best.ckpt").stat().st_size
    assert main(["test", "--ckpt_path", "small.ckpt"]) == 0
    assert Path("lightning_logs/small/version_0/test_mnist5k_small.json").is_file()


def test_from_checkpoint_in_python(run):
    model = BayesianClassifier.from_checkpoint(run / "best.ckpt")
    assert not model.training
    assert type(model.network) is LeNet
    data = MNIST5k(image_size=32)
    data.setup("test")
    assert model(next(iter(data.test_dataloader()))[0]).shape == (500, 10)


def test_the_committed_checkpoint(capsys):
    path = ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt"
    assert path.stat().st_size < 1_000_000
    assert read_checkpoint(path)[KEY]["format_version"] == 1
    assert main(["test", "--ckpt_path", str(path), "--data", "MNIST5k"]) == 2
    assert "training images" in said(capsys)
    assert main(["predict", "--ckpt_path", str(path), "--data", "MNIST5k"]) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist/version_0/predictions.csv"))
    data = MNIST5k()
    data.setup("test")
    right = sum(int(row["class"]) == label for row, label in zip(rows, data.test.labels.tolist(), strict=True))
    assert right >= 970  # training images all, so this says that the file works, not how well


def test_a_sentence_names_the_verb_that_was_asked_for(run, capsys):
    assert main(["test", "--ckpt_path", str(run / "last.ckpt"), "--data.foo", "3"]) == 2
    assert said(capsys) == "bnn: error: --data.foo is not a setting; bnn test --data.help NAME lists those of NAME.\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data.help", "MNIST"], "--data.batch_size"),
        (["--data.help=MNIST"], "--data.batch_size"),
        (["--print_config"], "ckpt_path: null"),
    ],
)
def test_help_needs_no_checkpoint(words, told, capsys):
    with pytest.raises(SystemExit) as left:
        main(["test", *words])
    assert left.value.code == 0
    assert told in capsys.readouterr().out


def test_one_sentence_of_an_unknown_message():
    assert one_sentence("something went\n  wrong.") == "something went wrong."


def test_more_epochs_go_on_with_the_learning_rate_of_the_longer_run(run, capsys):
    assert main(["fit", "--ckpt_path", str(run / "last.ckpt"), "--trainer.max_epochs", "4"]) == 0
    rows = table(Path("lightning_logs/lenet_lrt/version_0/metrics.csv"))
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-3, 5e-4, 5e-4, 2.5e-4])


def test_epochs_without_validation_keep_their_columns():
    words = ["--trainer.check_val_every_n_epoch", "2", "--trainer.max_epochs", "4", "--model.kl_weight.length", "0"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0
    rows = table(Path("lightning_logs/lenet_lrt/version_0/metrics.csv"))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["val/nll"]) for row in rows] == [False, True, False, True]
    assert all(0 < float(row["train/nll"]) < 10 for row in rows)


def test_validate_refuses_another_split_and_none(run, capsys):
    assert main(["validate", "--ckpt_path", str(run / "last.ckpt"), "--data.seed", "5"]) == 2
    assert "--data.seed must be the checkpoint's, 0, got 5; on another split the hold-out has training images." in said(
        capsys
    )
    assert (
        main(["fit", "--config", LENET, *SMALL, "--data.val_split", "0", "--trainer.max_epochs", "1", "--name", "all"])
        == 0
    )
    assert main(["validate", "--ckpt_path", "checkpoints/all/version_0/last.ckpt"]) == 2
    assert "was trained without a hold-out to validate on." in said(capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("fit --ckpt_path small.ckpt --trainer.max_epochs 9", "small.ckpt holds no training state: it can be tested"),
        ("fit --config {run}/last.ckpt", "--config must be a YAML file, got one that is not text."),
        (
            "test --ckpt_path {run}/last.ckpt --model.network AlexNet",
            "does not fit the network or method of the command",
        ),
        ("predict --ckpt_path {run}/last.ckpt --trainer.devices 2", "--trainer.devices must be 1 for predict, got 2."),
        ("fit --config {config} --trainer.accelerator foo", "--trainer: "),
        ("fit --config {config} --trainer.precision foo", "--trainer.precision must be one of "),
        ("fit --config {config} --trainer.max_steps 1", "--trainer.max_epochs sets a run's length"),
        (
            "fit --config {config} --trainer.accumulate_grad_batches 0",
            "accumulate_grad_batches must be 1 or more, got 0.",
        ),
        (
            "fit --config {config} --trainer.overfit_batches 4",
            "--trainer.overfit_batches would take other images in each epoch; --data.train_subset trains on a few.",
        ),
        (
            "fit --config {config} --trainer.precision 16-mixed --model.loss_form total",
            "--model.loss_form must be per_datum with --trainer.precision 16-mixed, whose numbers end at 65,504",
        ),
        ("fit --config {config} --trainer.limit_train_batches 0", "limit_train_batches must be above 0, got 0."),
        (
            "test --ckpt_path {run}/last.ckpt --trainer.limit_test_batches 0",
            "limit_test_batches must be above 0, got 0.",
        ),
        (
            "validate --ckpt_path {run}/last.ckpt --trainer.limit_val_batches 0",
            "limit_val_batches must be above 0, got 0.",
        ),
        ("prune --ckpt_path {run}/last.ckpt --removed []", "--removed must be a share of the weights, or several"),
        (
            "ensemble --ckpt_path {run}/best.ckpt --members [{run}/best.ckpt]",
            "best.ckpt is there twice; an ensemble is of different networks.",
        ),
        ("fit --config {config} --model.kl_weight.start -1", "--model.kl_weight.start must be whole epochs"),
        (
            "fit --config {config} --model.lr_schedule Plateau --model.lr_schedule.factor 2",
            "--model.lr_schedule.factor must be between 0 and 1, got 2.0.",
        ),
        ("fit --config {config} --model.lr_schedule Plateau --data.val_split 0", "Plateau needs a hold-out to watch"),
    ],
)
def test_mistakes_with_checkpoints_and_trainers(words, sentence, run, capsys):
    torch.save(without_training_state(read_checkpoint(run / "last.ckpt")), "small.ckpt")
    words = words.format(run=run, config=f"{LENET} {' '.join(SMALL)}").split()
    assert main(words) == 2
    text = said(capsys)
    assert sentence in text
    assert len(text.splitlines()) == 1


def test_our_network_on_a_users_own_data():
    words = ["--model.network", "MLP", "--model.network.image_size", "28", "--trainer.fast_dev_run", "true"]
    assert main(["fit", *words, "--data", f"{__name__}.OwnData"]) == 0


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
    given = ["fit", "--model.network", "MLP", *SMALL, "--trainer.fast_dev_run", "true"]
    assert main([*given, *words.split()]) == 0
    assert f"{parameters} parameters" in said(capsys)


def test_two_sizes_of_images_are_refused(capsys):
    words = ["--model.network", "MLP", "--model.network.image_size", "28", *SMALL, "--data.image_size", "20"]
    assert main(["fit", *words]) == 2
    assert "image_size must be one for network and data, got 28 and 20; give one of them." in said(capsys)


def test_a_seed_that_nobody_chose(monkeypatch, capsys):
    words = ["fit", "--config", LENET, *SMALL, "--trainer.fast_dev_run", "true", "--seed_everything", "true"]

    def seed():
        assert main(words) == 0
        return int(re.search(r"seed (\d+)", said(capsys))[1])

    first = seed()
    assert seed() != first
    monkeypatch.setenv("LOCAL_RANK", "0")  # as another process of a run has it, beside the first one's seed
    monkeypatch.setenv("PL_GLOBAL_SEED", "77")
    assert seed() == 77
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert main(words) == 2
    assert "--seed_everything must be a number where torchrun starts several processes, got true." in said(capsys)


class SizedNetwork(nn.Sequential):
    def __init__(self, image_size: int = 28, in_channels: int = 1, num_classes: int = 10):
        super().__init__(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


def test_a_users_network_is_given_the_size_of_the_images():
    words = ["fit", "--model.network", f"{__name__}.SizedNetwork", *SMALL, "--trainer.fast_dev_run", "true"]
    assert main(words) == 0
    assert main([*words, "--data.image_size", "20"]) == 0


@pytest.mark.parametrize("method", ["null", "MCDropout"])
def test_half_precision_where_no_noise_is_learnt(method):
    words = ["--model.method", method, "--trainer.precision", "bf16-true", "--trainer.fast_dev_run", "true"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0


def test_fast_dev_run_leaves_nothing_behind():
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.fast_dev_run", "true"]) == 0
    assert list(Path().iterdir()) == []


def test_fast_dev_run_of_a_checkpoint_leaves_nothing_behind(run, capsys):
    before = sorted(Path().rglob("*"))
    for verb in ("test", "predict"):
        assert main([verb, "--ckpt_path", str(run / "last.ckpt"), "--trainer.fast_dev_run", "true"]) == 0
    assert "500 predictions, which are not written" in said(capsys)
    assert sorted(Path().rglob("*")) == before


def test_a_test_set_that_is_split_by_seed_is_the_checkpoints(run, capsys):
    for label in range(10):
        for number in range(10):
            file = Path(f"photos/{label}/{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (32, 32), 25 * label + number).save(file)
    words = ["--data", "ImageFolder", "--data.root", "photos", "--trainer.max_epochs", "1", "--name", "photos"]
    assert main(["fit", "--model.network", "LeNet", *words]) == 0
    last = ["test", "--ckpt_path", "checkpoints/photos/version_0/last.ckpt", "--data.seed"]
    assert main([*last, "0"]) == 0
    capsys.readouterr()
    assert main([*last, "5"]) == 2
    assert "--data.seed must be the checkpoint's, 0, got 5; on another split the test set has tra" in said(capsys)
    # A set with test images of its own has them whatever the seed.
    assert main(["test", "--ckpt_path", str(run / "last.ckpt"), "--data.seed", "5"]) == 0


def test_predictions_of_some_batches(run):
    words = ["--data.eval_batch_size", "50", "--trainer.limit_predict_batches", "2"]
    assert main(["predict", "--ckpt_path", str(run / "last.ckpt"), *words]) == 0
    assert len(table(Path("lightning_logs/lenet_lrt/version_0/predictions.csv"))) == 100


def test_nothing_but_the_run_on_the_screen():
    words = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1"]
    result = subprocess.run([sys.executable, "-m", "bnn_lightning", *words], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert result.stdout.startswith("LeNet, LRT, MNIST5k")


# Sparsity, pruning, export


@pytest.fixture(scope="module")
def trained_sparse(tmp_path_factory):
    """A folder in which a sparse LeNet-300-100 and a deterministic LeNet have been trained for an epoch."""
    folder = tmp_path_factory.mktemp("sparse")
    config = str(ROOT / "configs" / "lenet300100_svd.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", config, *SMALL, "--name", "sparse", "--trainer.max_epochs", "1"]) == 0
        words = ["--model.method", "null", "--name", "twin", "--trainer.max_epochs", "1"]
        assert main(["fit", "--config", LENET, *SMALL, *words]) == 0
    return folder


@pytest.fixture
def sparse(trained_sparse, tmp_path):
    shutil.copytree(trained_sparse, tmp_path, dirs_exist_ok=True)
    return Path("checkpoints/sparse/version_0/last.ckpt")


def test_test_reports_the_sparsity_of_each_layer(sparse, capsys):
    assert main(["test", "--ckpt_path", str(sparse)]) == 0
    out = said(capsys)
    assert "Kept are the weights with log alpha below 3:" in out
    assert re.search(r"\nfc1 +235,200 ", out)
    assert re.search(r"compression \d+\.\dx \(weights over kept weights\), \d+\.\dx with biases", out)
    logs = Path("lightning_logs/sparse/version_0")
    found = json.loads((logs / "test_mnist5k_last.json").read_text())
    assert list(found["predictions"]) == ["25 weight draws", "1 weight draw", "mean weights", "kept weights"]
    assert found["sparsity"]["kept"] == sum(layer["kept"] for layer in found["sparsity"]["layers"])
    assert found["sparsity"]["compression"] == pytest.approx(266_200 / found["sparsity"]["kept"])
    rows = table(logs / "sparsity_last.csv")
    assert [row["layer"] for row in rows] == ["fc1", "fc2", "fc3", "all"]
    assert int(rows[3]["kept"]) == found["sparsity"]["kept"]
    assert Image.open(logs / "kept_weights_last.png").size[0] > 400
    tags = EventAccumulator(str(logs)).Reload().Tags()["scalars"]
    assert "train/sparsity" in tags


def test_export_writes_a_network_that_plain_torch_loads(sparse, capsys):
    assert main(["export", "--ckpt_path", str(sparse), "--removed", "0.995"]) == 0
    out = said(capsys)
    assert "Kept are the 0.5 % of weights with the highest |mu| / sigma:" in out
    assert "Largest difference of a logit between the dense network and the kept weights: " in out
    rows = table(Path("lightning_logs/sparse/version_0/export_last.csv"))
    assert int(rows[2]["parameters"]) < int(rows[1]["parameters"]) == 266_610
    assert int(rows[2]["bytes"]) == sparse.with_suffix(".pt2").stat().st_size
    record: dict[str, str] = {"bnn_lightning.json": ""}
    network = torch.export.load(sparse.with_suffix(".pt2"), extra_files=record).module()
    data = MNIST5k(image_size=28, normalize=False)
    data.setup("test")
    images, _ = next(iter(data.test_dataloader()))
    assert network(images).shape == (500, 10)
    assert json.loads(record["bnn_lightning.json"])["data"]["class_names"] == [str(digit) for digit in range(10)]


def test_prune_sweeps_over_shares(run, capsys):
    assert main(["prune", "--ckpt_path", str(run / "last.ckpt"), "--removed", "[0, 0.9]"]) == 0
    logs = Path("lightning_logs/lenet_lrt/version_0")
    rows = table(logs / "pruning_mnist5k_last.csv")
    assert [(float(row["removed"]), int(row["kept"])) for row in rows] == [(0.0, 61_470), (0.9, 6_147)]
    assert Image.open(logs / "pruning_mnist5k_last.png").size[0] > 400


def test_prune_is_of_the_test_images_whatever_else_is_tested(run):
    found = []
    for words in ([], ["--data.corruptions", "true", "--data.ood", "[RenderedLetters]"]):
        assert main(["prune", "--ckpt_path", str(run / "last.ckpt"), "--removed", "0", *words]) == 0
        found.append(table(Path("lightning_logs/lenet_lrt/version_0/pruning_mnist5k_last.csv")))
    assert found[0] == found[1]


def test_init_from_the_twin_and_its_mistakes(sparse, capsys):
    twin = "checkpoints/twin/version_0/last.ckpt"
    words = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1", "--model.init_from"]
    assert main([*words, twin, "--name", "moped"]) == 0
    Path(twin).unlink()  # a run's own checkpoint is enough from here on
    last = "checkpoints/moped/version_0/last.ckpt"
    assert main(["test", "--ckpt_path", last]) == 0
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "2"]) == 0
    capsys.readouterr()
    assert main([*words, twin]) == 2
    assert f"--model.init_from must be a checkpoint of the deterministic twin, got {twin}: there is no" in said(capsys)
    assert main([*words, last]) == 2
    assert "conv1.bias must be [6] as in this network, got nothing." in said(capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("export --ckpt_path {twin} --removed 0.5", "--ckpt_path is of a network whose weights have no signal"),
        ("prune --ckpt_path {twin}", "--ckpt_path is of a network whose weights have no signal"),
        ("prune --ckpt_path {lrt} --removed [0.5,2]", "--removed must be a share of the weights from 0 to 1, got 2.0."),
        ("prune --ckpt_path {lrt} --removed half", "--removed does not take half; bnn prune --help says what it is."),
        (
            "export --ckpt_path {lrt}",
            "--removed is missing: this method drives no weights to zero by itself; bnn prune",
        ),
        ("export --ckpt_path {lrt} --removed 2", "--removed must be a share of the weights from 0 to 1, got 2.0."),
        ("export --ckpt_path {sparse} --format foo", "--format must be one of 'dense', got foo."),
        ("fit --config {config} --model.method.prior ScaleMixture", "--model.method.prior must be the normal one or"),
        ("fit --config {config} --model.method.prior Mixture", "--model.method.prior does not know Mixture; did you"),
        (
            "fit --config {config} --model.method VariationalA --model.method.p 0.7",
            "--model.method.p must be at most 0.5 for VariationalA, whose alpha ends at 1, got 0.7.",
        ),
        (
            "fit --config {config} --model.method MCDropout --model.method.p 1",
            "--model.method.p must be a dropout rate",
        ),
        (
            "fit --config {config} --model.method Sparse --model.method.prune_in_training true "
            "--model.method.parametrisation log_alpha",
            "--model.method.prune_in_training must be false for multiplicative noise",
        ),
        ("fit --config {config} --model.network CIFARNet --model.network.scale 0", "--model.network.scale must be a"),
    ],
)
def test_mistakes_with_methods_and_export(words, sentence, run, sparse, capsys):
    paths = {"twin": "checkpoints/twin/version_0/last.ckpt", "lrt": run / "last.ckpt", "sparse": sparse}
    words = words.format(config=f"{LENET} {' '.join(SMALL)}", **paths).split()
    assert main(words) == 2
    text = said(capsys)
    assert sentence in text
    assert len(text.splitlines()) == 1


def test_a_collapsed_run_ends_with_the_cure_and_keeps_its_checkpoint(capsys):
    config = str(ROOT / "configs" / "lenet300100_svd.yaml")
    words = ["--model.kl_weight", "1.0", "--trainer.max_epochs", "9", "--name", "collapse"]
    assert main(["fit", "--config", config, "--data", "MNIST5k", "--data.train_subset", "1000", *words]) == 2
    text = said(capsys)
    assert "bnn: error: the weights have collapsed in epoch" in text
    assert "LinearWarmup" in text
    assert epochs_done(read_checkpoint("checkpoints/collapse/version_0/last.ckpt")) >= 1


# Uncertainty


def test_fit_calibrates_on_the_half_of_the_hold_out_that_selected_nothing(run):
    # The fault of a calibration on the selection half would pass every check of its numbers but this one.
    data = MNIST5k(image_size=32, train_subset=600)
    data.setup("fit")
    for name in ("best", "last"):
        model = BayesianClassifier.from_checkpoint(run / f"{name}.ckpt")
        assert list(model.calibration) == ["mean", "local", "weights"]
        probs = {}
        for half in ("calibration", "selection"):
            images = getattr(data, half)
            mean, std = data.mean[0], data.std[0]
            x = (images.pixels / 255 - mean) / std
            log_probs = log_predictive(Sampler(model.network, model.test_samples)(x))
            probs[half] = Calibration.fit(log_probs, images.labels)
        kept = model.calibration["weights"]
        assert kept.temperature == pytest.approx(probs["calibration"].temperature, rel=1e-3)
        torch.testing.assert_close(kept.confidence, probs["calibration"].confidence, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(kept.confidence, probs["selection"].confidence, rtol=1e-3, atol=1e-4)


def test_a_run_without_a_hold_out_is_not_calibrated(capsys):
    words = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1", "--data.val_split", "0", "--name", "all"]
    assert main(words) == 0
    last = "checkpoints/all/version_0/last.ckpt"
    assert read_checkpoint(last)[KEY].get("calibration") is None
    assert main(["test", "--ckpt_path", last]) == 0
    assert "not calibrated" in said(capsys)
    assert main(["predict", "--ckpt_path", last]) == 0
    assert "holds no calibration" in said(capsys)
    assert "decision" not in table(Path("lightning_logs/all/version_0/predictions.csv"))[0]


def test_test_with_images_from_elsewhere_and_corruptions(run, capsys):
    words = ["--data.ood+=RenderedLetters", "--data.corruptions", "true", "--model.test_samples", "3"]
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), *words]) == 0
    out = said(capsys)
    for title in ("AURC", "ECE at temperature", "risk at 95 % coverage", "± images", "± draws"):
        assert title in out
    assert "Told from RenderedLetters:" in out
    assert "letters rendered from fonts, not notMNIST" in out
    assert re.search(r"\nocclusion +nll +\d", out)
    logs = Path("lightning_logs/lenet_lrt/version_0")
    results = json.loads((logs / "test_mnist5k_best.json").read_text())
    assert set(results["ood"]["RenderedLetters"]) == set(OOD_SCORES)
    assert results["corruptions"]["noise"].keys() == {"1", "2", "3", "4", "5"}
    ood = table(logs / "test_mnist5k_best_ood.csv")
    assert float(ood[0]["auroc"]) == results["ood"]["RenderedLetters"]["entropy"]["auroc"]["value"]
    assert len(table(logs / "test_mnist5k_best_corruptions.csv")) == 26
    row = table(logs / "test_mnist5k_best.csv")[0]
    assert float(row["nll_draw_error"]) == results["errors"]["3 weight draws"]["nll"]["draws"]
    assert float(row["nll_scaled"]) == results["predictions"]["3 weight draws"]["nll_scaled"]
    figures = ("reliability", "risk_coverage", "extremes", "turning", "ood", "uncertainty")
    for name in figures:
        with Image.open(logs / f"test_mnist5k_best_{name}.png") as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("L").getcolors(256)) > 20  # something is drawn
    events = EventAccumulator(str(logs)).Reload().Tags()
    assert {f"test_mnist5k_best_{name}" for name in figures} <= set(events["images"])
    wanted = {"test/aurc", "test/nll_scaled", "ood_RenderedLetters/entropy_auroc", "corruption_noise/nll_5"}
    assert wanted <= set(events["scalars"])


@pytest.mark.parametrize("draws", ["local", "mean"])
def test_other_ways_of_drawing_samples(run, draws, capsys):
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), "--model.draws", draws]) == 0
    assert {"local": "25 local draws", "mean": "mean weights"}[draws] in said(capsys)
    logs = Path("lightning_logs/lenet_lrt/version_0")
    assert (logs / f"test_mnist5k_best_{draws}.json").is_file()
    assert not (logs / "test_mnist5k_best.json").exists()


def test_tensorboard_shows_the_posterior_and_the_hyper_parameters(run):
    tags = EventAccumulator("lightning_logs/lenet_lrt/version_0").Reload().Tags()
    wanted = {f"{what}/conv1.weight" for what in ("sigma", "mu_over_sigma", "log_alpha")}
    assert wanted | {"sigma/fc3.bias"} <= set(tags["histograms"])
    assert {"posterior and prior", "first layer"} <= set(tags["images"])
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set().union(
        *(EventAccumulator(str(file)).Reload().summary_metadata for file in Path("lightning_logs").rglob("events*"))
    )


def test_predict_says_what_to_do_with_each_picture(run, capsys):
    best = str(run / "best.ckpt")
    words = ["predict", "--ckpt_path", best, "--target_risk", "0.85", "--alpha", "0.2"]
    assert main(words) == 0
    assert "Accepted is what has a confidence of" in said(capsys)
    rows = table(Path("lightning_logs/lenet_lrt/version_0/predictions.csv"))
    assert {row["decision"] for row in rows} == {"accept", "abstain"}
    assert any(" | " in row["set"] for row in rows)
    # The next prediction leaves this one as it is; a single file is enough.
    Image.new("L", (28, 28), 0).save("one picture.png")
    assert main([*words, "--data", "ImageFolder", "--data.root", "one picture.png"]) == 0
    assert table(Path("lightning_logs/lenet_lrt/version_0/predictions.csv")) == rows
    assert [row["file"] for row in table(Path("lightning_logs/lenet_lrt/version_0/predictions_1.csv"))] == [
        "one picture.png"
    ]


def test_a_picture_that_cannot_be_read_gets_its_row_even_alone(run):
    Path("broken.png").write_bytes(b"nothing")
    words = ["predict", "--ckpt_path", str(run / "best.ckpt"), "--data", "ImageFolder", "--data.root", "broken.png"]
    assert main(words) == 0
    rows = table(Path("lightning_logs/lenet_lrt/version_0/predictions.csv"))
    assert [row["file"] for row in rows] == ["broken.png"]
    assert "cannot identify image file" in rows[0]["error"]


def test_a_users_pictures_from_training_to_decisions(capsys):
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
    assert "Told from ImageFolder:" in said(capsys)
    assert main(["test", "--ckpt_path", best, "--data.ood", ood.replace("elsewhere", "photos")]) == 2
    assert "--data.ood must be images from elsewhere, got ImageFolder" in said(capsys)
    # Without --data the pictures of the test set, not those that it was trained on.
    assert main(["predict", "--ckpt_path", best]) == 0
    assert len(table(Path("lightning_logs/own/version_0/predictions.csv"))) == 12
    assert main(["predict", "--ckpt_path", best, "--data.root", "photos"]) == 0
    assert len(table(Path("lightning_logs/own/version_0/predictions_1.csv"))) == 60


def test_predictions_do_not_depend_on_the_batches(run):
    # T3.7
    words = ["predict", "--ckpt_path", str(run / "best.ckpt")]
    assert main(words) == 0
    assert main([*words, "--data.eval_batch_size", "7"]) == 0
    logs = Path("lightning_logs/lenet_lrt/version_0")
    first, second = (table(logs / name) for name in ("predictions.csv", "predictions_1.csv"))
    for one, other in zip(first, second, strict=True):
        assert one["class"] == other["class"]
        for key in ("confidence", "entropy", "mutual_information", "aleatoric", "epistemic"):
            assert float(one[key]) == pytest.approx(float(other[key]), rel=1e-3, abs=1e-5)


def test_an_ensemble_of_checkpoints(run, capsys):
    config = ["--config", LENET, *SMALL, "--trainer.max_epochs", "1"]
    assert main(["fit", *config, "--seed_everything", "1"]) == 0
    second = "checkpoints/lenet_lrt/version_1/best.ckpt"
    words = ["--model.test_samples", "5", "--model.val_samples", "3"]
    assert main(["ensemble", "--ckpt_path", str(run / "best.ckpt"), "--members", f"[{second}]", *words]) == 0
    capsys.readouterr()
    joined = str(run / "ensemble.ckpt")
    assert main(["ensemble", "--ckpt_path", str(run / "best.ckpt"), "--members", f"[{second}]"]) == 2
    assert f"--output {joined} is there already; name another file." in said(capsys)
    assert main(["test", "--ckpt_path", joined]) == 0  # with 5 samples, which are 3 of each network
    text = said(capsys)
    assert "6 weight draws, 2 networks" in text
    assert "calibrated with" not in text
    found = json.loads(Path("lightning_logs/lenet_lrt/version_0/test_mnist5k_ensemble.json").read_text())
    assert found["temperature"] is not None
    elbos = [read_checkpoint(path)[KEY]["training"]["elbo_per_n"] for path in (run / "best.ckpt", second)]
    assert found["training"]["elbo_per_n"] == pytest.approx(sum(elbos) / 2)
    model = BayesianClassifier.from_checkpoint(joined)
    x = torch.randn(4, 1, 32, 32)
    logits = model.sampler(6)(x)
    first = BayesianClassifier.from_checkpoint(run / "best.ckpt")
    torch.testing.assert_close(logits[:3], Sampler(first.network, 3)(x), rtol=1e-4, atol=1e-5)
    model.network.members[0].load_state_dict(BayesianClassifier.from_checkpoint(second).network.state_dict())
    torch.testing.assert_close(model.sampler(2, "mean")(x)[0], model.sampler(2, "mean")(x)[1])
    assert main(["validate", "--ckpt_path", joined]) == 0
    assert "4 local draws" in said(capsys)
    assert main(["predict", "--ckpt_path", joined]) == 0
    assert main(["ensemble", "--ckpt_path", second, "--members", f"[{joined}]", "--output", "new.ckpt"]) == 2
    assert f"--members {joined} is an ensemble; name the checkpoints of its networks." in said(capsys)
    other = ["--model.method.prior_sigma", "0.3", "--name", "other"]
    assert main(["fit", *config, *other]) == 0
    words = ["ensemble", "--ckpt_path", joined.replace("ensemble", "best"), "--members"]
    assert main([*words, "[checkpoints/other/version_0/best.ckpt]", "--output", "new.ckpt"]) == 2
    assert "differs from --ckpt_path in --model.method.prior_sigma (0.1 and 0.3); only the seed may." in said(capsys)
    assert main([*words, "[nowhere.ckpt]", "--output", "new.ckpt"]) == 2
    assert "there is no file nowhere.ckpt." in said(capsys)
    assert main(["fit", "--ckpt_path", joined, "--trainer.max_epochs", "3"]) == 2
    assert "holds no training state" in said(capsys)
    assert main(["prune", "--ckpt_path", joined]) == 2
    assert "--ckpt_path is of an ensemble; name the checkpoint of one of its networks." in said(capsys)
    assert main(["fit", *config, "--model.members", "2", "--name", "both"]) == 2
    assert "--model.members must be 1 to train or call a network, got 2" in said(capsys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "test --ckpt_path {run}/best.ckpt --model.draws median",
            "--model.draws must be one of 'weights', 'local', 'mean', got median.",
        ),
        (
            "test --ckpt_path {run}/best.ckpt --data.ood+=MNIST5k",
            "--data.ood must be images from elsewhere, got MNIST5k",
        ),
        ("test --ckpt_path {run}/best.ckpt --data.ood+=NotMNIST", "NotMNIST was not found: looked for notMNIST_small"),
        ("predict --ckpt_path {run}/best.ckpt --alpha 1.5", "--alpha must be a rate between 0 and 1"),
        ("predict --ckpt_path {run}/best.ckpt --target_risk 0", "--target_risk must be a rate between 0 and 1"),
        ("test --ckpt_path {run}/best.ckpt --model.predict_chunk 0", "--model.predict_chunk must be 1 or more, got 0."),
    ],
)
def test_mistakes_with_uncertainty(words, sentence, run, capsys, monkeypatch):
    def no_internet(*args, **kwargs):
        raise OSError("no internet")

    monkeypatch.setattr("bnn_lightning.data.notmnist.download_url", no_internet)
    assert main(words.format(run=run).split()) == 2
    text = said(capsys)
    assert sentence in text
    assert text.count("\n") == 1
