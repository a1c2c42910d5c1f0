"""``bnn fit``: what it writes, what it says, which epoch is its result."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnn_lightning import BayesianModule, Sampler, log_predictive
from bnn_lightning.checkpoints.record import KEY, Record, read_checkpoint
from bnn_lightning.cli import main
from bnn_lightning.data import MNIST5k
from bnn_lightning.likelihoods.categorical.calibration import Calibration
from tests.helpers import LENET, ON_THE_COMMAND_LINE, ROOT, SMALL, printed, table

pytestmark = ON_THE_COMMAND_LINE


def test_fit_writes_the_paired_folders_curves_and_a_table(run, capsys):
    logs = Path("lightning_logs/lenet_lrt_mnist5k/version_0")
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
    # Nothing constant, and nothing that another curve says: -elbo/N is the loss at KL weight 1, N KL/N the KL.
    curves = {"lr", "train/kl_weight", "train/weighted_loss"}
    curves |= {f"{part}/{name}" for part in ("train", "val") for name in ("nll", "accuracy", "elbo_per_n", "kl_per_n")}
    assert {tag for tag in tags if not tag.startswith("hp/")} == curves


def test_without_a_terminal_there_are_plain_lines_and_nothing_of_lightnings(capsys):
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert re.match(
        r"LeNet, LRT, MNIST5k: 123,412 parameters, N = 480 \(selection 60, calibration 60\), 1 epoch, seed 0", lines[0]
    )
    assert re.match(
        r"epoch 1/1  nll \d.*  kl/N .* \(weight 0\.50\)  elbo/N -.*  accuracy .* %  val nll .* s$", lines[1]
    )
    assert lines[-1] == "Next:        bnn test --ckpt_path checkpoints/lenet_lrt_mnist5k/version_0/best.ckpt"
    assert "tempered, posterior not converged" in captured.out
    assert captured.err == ""
    assert not re.search("litlogger|Tip|TPU|GPU available", captured.out)


def test_the_allocator_is_tuned_unless_it_is_left_alone(capsys, monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    quick = ["fit", "--config", LENET, *SMALL, "--trainer.fast_dev_run", "true"]
    calls = []
    monkeypatch.setattr("bnn_lightning.cli.command_line.keep_freed_memory", lambda: calls.append(1) or True)
    assert main(quick) == 0
    assert main([*quick, "--keep_memory", "false"]) == 0
    assert len(calls) == 1


@pytest.mark.slow
def test_a_compiled_run_ends_in_a_checkpoint_that_needs_no_compiler(capsys, monkeypatch):
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1", "--model.compile", "true"]) == 0
    last = "checkpoints/lenet_lrt_mnist5k/version_0/last.ckpt"
    monkeypatch.setattr(
        "bnn_lightning.training.module.check_compiler", lambda device: pytest.fail("compiled to predict")
    )
    assert main(["predict", "--ckpt_path", last, "--model.compile", "false"]) == 0


@pytest.mark.slow
def test_best_is_chosen_after_the_warm_up_by_validation_nll():
    # Weight 0 makes the first epochs' NLL the lowest there is; they are no candidates all the same.
    words = "--model.inference.kl_weight.length 3 --model.method.prior_sigma 0.01 --model.inference.lr 0.01"
    assert main(["fit", "--config", LENET, *SMALL, *words.split(), "--trainer.max_epochs", "6"]) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/metrics.csv"))
    settled = [(float(row["val/nll"]), int(row["epoch"])) for row in rows if float(row["train/kl_weight"]) == 1]
    assert len(settled) == 3
    best = Record.read("checkpoints/lenet_lrt_mnist5k/version_0/best.ckpt")
    assert best.epochs_done == min(settled)[1]


def shown(capsys):
    """The rows of the table at the end of fit, by the name of the checkpoint."""
    rows = re.findall(r"^(best|last) +(\d.*)$", printed(capsys), re.MULTILINE)
    return {name: cells.split() for name, cells in rows}


def test_weights_that_were_not_validated_are_not_shown_with_the_numbers_of_others(capsys):
    words = ["--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2", "--name", "some"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0
    rows = shown(capsys)
    assert rows["best"][0] == "2"
    assert float(rows["best"][1]) > 0
    assert rows["last"][:3] == ["3", "-", "-"]
    assert main(["fit", "--ckpt_path", "checkpoints/some/version_0/last.ckpt", "--trainer.max_epochs", "4"]) == 0
    rows = shown(capsys)
    assert rows["last"][0] == "4"
    assert float(rows["last"][1]) > 0


def test_without_hold_out_the_last_epoch_is_the_result(capsys):
    assert main(["fit", "--config", LENET, *SMALL, "--data.val_split", "0", "--trainer.max_epochs", "1"]) == 0
    assert [path.name for path in Path("checkpoints/lenet_lrt_mnist5k/version_0").iterdir()] == ["last.ckpt"]
    assert "bnn test --ckpt_path checkpoints/lenet_lrt_mnist5k/version_0/last.ckpt" in printed(capsys)


def test_more_epochs_go_on_with_the_learning_rate_of_the_longer_run(run, capsys):
    assert main(["fit", "--ckpt_path", str(run / "last.ckpt"), "--trainer.max_epochs", "4"]) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/metrics.csv"))
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-3, 5e-4, 5e-4, 2.5e-4])


def test_epochs_without_validation_keep_their_columns():
    words = "--trainer.check_val_every_n_epoch 2 --trainer.max_epochs 4 --model.inference.kl_weight.length 0"
    assert main(["fit", "--config", LENET, *SMALL, *words.split()]) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/metrics.csv"))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["val/nll"]) for row in rows] == [False, True, False, True]
    assert all(0 < float(row["train/nll"]) < 10 for row in rows)


def test_a_seed_that_nobody_chose_is_another_each_time_and_one_for_all_processes(monkeypatch, capsys):
    words = ["fit", "--config", LENET, *SMALL, "--trainer.fast_dev_run", "true", "--seed_everything", "true"]

    def seed():
        assert main(words) == 0
        return int(re.search(r"seed (\d+)", printed(capsys))[1])

    first = seed()
    assert seed() != first
    monkeypatch.setenv("LOCAL_RANK", "0")  # as another process of a run has it, beside the first one's seed
    monkeypatch.setenv("PL_GLOBAL_SEED", "77")
    assert seed() == 77
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert main(words) == 2
    assert "--seed_everything must be a number where torchrun starts several processes, got true." in printed(capsys)


@pytest.mark.parametrize("method", ["null", "MCDropout"])
def test_half_precision_trains_where_no_noise_is_learnt(method):
    words = ["--model.method", method, "--trainer.precision", "bf16-true", "--trainer.fast_dev_run", "true"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0


def test_fast_dev_run_leaves_nothing_behind_and_says_so(capsys):
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.fast_dev_run", "true"]) == 0
    assert printed(capsys).endswith("\nIt runs. Nothing was written, for --trainer.fast_dev_run only tries.\n")
    assert list(Path().iterdir()) == []


def test_a_run_without_checkpoints_says_so(capsys):
    words = ["--trainer.enable_checkpointing", "false", "--trainer.max_epochs", "1", "--name", "a"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0
    none = "Checkpoints: none, for --trainer.enable_checkpointing is false\n"
    assert printed(capsys).endswith(f"\n{none}Curves:      tensorboard --logdir lightning_logs\n")


@pytest.mark.slow
def test_nothing_but_the_run_is_on_the_screen():
    words = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1"]
    result = subprocess.run([sys.executable, "-m", "bnn_lightning", *words], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert result.stdout.startswith("LeNet, LRT, MNIST5k")


@pytest.mark.slow
def test_a_run_starts_from_its_twin_or_itself_and_from_nothing_else(sparse, capsys):
    twin = "checkpoints/twin/version_0/last.ckpt"
    words = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1", "--model.init_from"]
    assert main([*words, twin, "--name", "moped"]) == 0
    Path(twin).unlink()  # a run's own checkpoint is enough from here on
    last = "checkpoints/moped/version_0/last.ckpt"
    assert main(["test", "--ckpt_path", last]) == 0
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "2"]) == 0
    capsys.readouterr()
    assert main([*words, twin]) == 2
    sentence = f"--model.init_from must be a checkpoint of the deterministic twin, got {twin}: there is no"
    assert sentence in printed(capsys)
    assert main([*words, last, "--name", "again"]) == 0
    assert main([*words, last, "--model.network", "ThreeConvThreeFC"]) == 2
    assert "--model.init_from must be a checkpoint of the deterministic twin, got" in printed(capsys)


def test_a_collapsed_run_ends_with_the_cure_and_keeps_its_checkpoint(capsys):
    config = str(ROOT / "configs" / "lenet300100_svd.yaml")
    words = ["--model.inference.kl_weight", "1.0", "--trainer.max_epochs", "9", "--name", "collapse"]
    assert main(["fit", "--config", config, "--data", "MNIST5k", "--data.train_subset", "1000", *words]) == 2
    text = printed(capsys)
    assert "bnn: error: the weights have collapsed in epoch" in text
    assert "LinearWarmup" in text
    assert Record.read("checkpoints/collapse/version_0/last.ckpt").epochs_done >= 1


def test_fit_calibrates_on_the_half_of_the_hold_out_that_selected_nothing(run):
    # The fault of a calibration on the selection half would pass every check of its numbers but this one.
    data = MNIST5k(image_size=32, train_subset=600)
    data.setup("fit")
    for name in ("best", "last"):
        model = BayesianModule.from_checkpoint(run / f"{name}.ckpt")
        assert set(model.calibration) == {"mean", "local", "weights", "moments"}
        fitted = {}
        for half in ("calibration", "selection"):
            images = getattr(data, half)
            mean, std = data.mean[0], data.std[0]
            x = (images.pixels / 255 - mean) / std
            log_probs = log_predictive(Sampler(model.network, model.test_samples)(x))
            fitted[half] = Calibration.fit(log_probs, images.labels)
        calibration = model.calibration["weights"]
        assert calibration.temperature == pytest.approx(fitted["calibration"].temperature, rel=1e-3)
        torch.testing.assert_close(calibration.confidence, fitted["calibration"].confidence, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(calibration.confidence, fitted["selection"].confidence, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_run_without_a_hold_out_is_not_calibrated(capsys):
    words = ["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1", "--data.val_split", "0", "--name", "all"]
    assert main(words) == 0
    last = "checkpoints/all/version_0/last.ckpt"
    assert read_checkpoint(last)[KEY].get("calibration") is None
    assert main(["test", "--ckpt_path", last]) == 0
    assert "not calibrated" in printed(capsys)
    assert main(["predict", "--ckpt_path", last]) == 0
    assert "holds no calibration" in printed(capsys)
    assert "decision" not in table(Path("lightning_logs/all/version_0/predictions.csv"))[0]


def test_tensorboard_shows_the_posterior_and_the_hyper_parameters(run):
    tags = EventAccumulator("lightning_logs/lenet_lrt_mnist5k/version_0").Reload().Tags()
    wanted = {f"{what}/conv1.weight" for what in ("sigma", "mu_over_sigma", "log_alpha")}
    assert wanted | {"sigma/fc3.bias"} <= set(tags["histograms"])
    assert {"posterior and prior", "first layer"} <= set(tags["images"])
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set().union(
        *(EventAccumulator(str(file)).Reload().summary_metadata for file in Path("lightning_logs").rglob("events*"))
    )


def test_commands_to_go_on_with_can_be_copied_into_a_shell(capsys):
    words = ["--name", "a run", "--trainer.default_root_dir", "it's [new]", "--trainer.max_epochs", "1"]
    assert main(["fit", "--config", LENET, *SMALL, *words]) == 0
    *_, curves, following = capsys.readouterr().out.splitlines()
    assert shlex.split(curves)[1:] == ["tensorboard", "--logdir", "it's [new]/lightning_logs"]
    best = "it's [new]/checkpoints/a run/version_0/best.ckpt"
    assert shlex.split(following)[1:] == ["bnn", "test", "--ckpt_path", best]
