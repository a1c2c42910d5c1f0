"""Checkpoints, configs and names of earlier releases go on working, and the new names are said once."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from bnn_lightning import BBB, LRT, BayesianModule, LearntScale, LeNet, LinearDecay, ScaleMixture, bayesianize
from bnn_lightning.checkpoints.ensembles import first_difference
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.checkpoints.upgrade import upgraded_arguments, upgraded_config, upgraded_words
from bnn_lightning.cli import main
from bnn_lightning.training.deprecated import BayesianClassifier
from tests.helpers import LENET, ON_THE_COMMAND_LINE, ROOT, SMALL, printed, table

FORMAT_1 = Path(__file__).with_name("format_1.ckpt")
OLD_MODEL = {
    "network": "LeNet",
    "method": {"class_path": "bnn_lightning.methods.VariationalB", "init_args": {"noise_on": "B"}},
    "lr": 0.01,
    "lr_schedule": {"class_path": "bnn_lightning.schedules.LinearDecay", "init_args": {"start": 3}},
    "optimizer": "sgd",
    "momentum": 0.9,
    "rho_lr_factor": 10.0,
    "kl_weight": 0.5,
    "loss_form": "per_datum",
    "train_samples": 2,
    "val_samples": 3,
    "test_samples": 4,
    "draws": "local",
    "predict_chunk": 64,
    "test_seed": 7,
    "only": "fc*",
}
NEW_MODEL = {
    "network": "LeNet",
    "method": {"class_path": "bnn_lightning.core.methods.VariationalB", "init_args": {"noise_on": "outputs"}},
    "only": "fc*",
    "inference": {
        "class_path": "bnn_lightning.Variational",
        "init_args": {
            "lr": 0.01,
            "lr_schedule": {"class_path": "bnn_lightning.inference.LinearDecay", "init_args": {"start": 3}},
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}},
            "rho_lr_factor": 10.0,
            "kl_weight": 0.5,
            "loss_form": "per_datum",
            "samples": 2,
        },
    },
    "sampling": {"val_samples": 3, "test_samples": 4, "draws": "local", "chunk": 64, "seed": 7},
}


def test_every_setting_of_an_earlier_config_has_its_place():
    notes = []
    config = {"seed_everything": 0, "model": OLD_MODEL, "data": {"class_path": "bnn_lightning.data.MNIST"}}
    upgraded = upgraded_config(config, notes.append)
    assert upgraded == config | {"model": NEW_MODEL}
    assert "model.lr is called model.inference.lr now." in notes
    assert "model.test_samples is called model.sampling.test_samples now." in notes
    assert config["model"] == OLD_MODEL  # not touched
    again = []
    assert upgraded_config(upgraded, again.append) == upgraded
    assert again == []


def test_what_a_config_says_in_todays_words_wins():
    model = {"lr": 0.1, "inference": {"class_path": "bnn_lightning.Variational", "init_args": {"lr": 0.2}}}
    assert upgraded_config({"model": model})["model"]["inference"]["init_args"]["lr"] == 0.2


EARLIER = """fit --model.momentum=0.9 --model.optimizer sgd --model.lr_schedule.start 3
    --model.test_samples 4 --model.method.noise_on W --model.network LeNet"""
TODAYS = """fit --model.inference.optimizer torch.optim.SGD --model.inference.lr_schedule.start 3
    --model.sampling.test_samples 4 --model.method.noise_on weights --model.network LeNet
    --model.inference.optimizer.momentum=0.9"""


def test_every_flag_of_an_earlier_command_line_has_its_place():
    notes = []
    assert upgraded_words(EARLIER.split(), notes.append) == TODAYS.split()
    assert len(notes) == 4


def test_settings_in_braces_are_upgraded_too():
    words = ["fit", "--model", "{lr: 0.1, test_samples: 4}", "--model.method", "{init_args: {noise_on: B}}"]
    model = {"inference": {"class_path": "bnn_lightning.Variational", "init_args": {"lr": 0.1}}}
    _, _, first, _, second = upgraded_words(words)
    assert json.loads(first) == model | {"sampling": {"test_samples": 4}}
    assert json.loads(second) == {"init_args": {"noise_on": "outputs"}}
    assert upgraded_words(["fit", "--data.ood", "[NotMNIST]"]) == ["fit", "--data.ood", "[NotMNIST]"]


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        ({"optimizer": "sgd", "momentum": 0.0}, {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.0}}),
        ({"momentum": 0.9}, {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}}),
        ({"optimizer": "adam", "momentum": 0.0}, {"class_path": "torch.optim.Adam"}),
        (
            {"momentum": 0.9, "inference": {"init_args": {"optimizer": "torch.optim.SGD"}}},
            {"class_path": "torch.optim.SGD", "init_args": {"momentum": 0.9}},
        ),
    ],
)
def test_momentum_goes_to_the_optimizer(model, optimizer):
    inference = upgraded_config({"model": model})["model"]["inference"]
    assert inference["init_args"] == {"optimizer": optimizer}


def test_a_momentum_that_cannot_be_placed_is_said():
    notes = []
    assert upgraded_config({"model": {"momentum": 0.0}}, notes.append) == {"model": {}}
    assert "model.momentum 0 is left out" in notes[-1]


def test_old_and_new_checkpoints_of_one_command_make_an_ensemble():
    def record(model):
        config = {"seed_everything": 0, "name": "a", "model": model, "data": {"class_path": "D"}, "trainer": {}}
        return Record.from_contents({"bnn_lightning": {"format_version": 2, "config": config}})

    old = upgraded_config({"model": {"network": {"class_path": "N"}, "method": {"class_path": "LRT"}, "lr": 0.001}})
    adam = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.001, "eps": 1e-8}}
    settings = {"lr": None, "optimizer": adam, "samples": 2}
    new = old["model"] | {"inference": {"class_path": "bnn_lightning.Variational", "init_args": settings}}
    assert first_difference(record(old["model"]), record(new)) is None
    assert first_difference(record(old["model"]), record(new | {"method": None})).startswith("--model.method")
    other = new | {"inference": {"class_path": "bnn_lightning.Variational", "init_args": settings | {"lr": 0.1}}}
    assert first_difference(record(old["model"]), record(other)) == "--model.inference.lr (0.001 and 0.1)"


def test_names_of_python_warn_and_mean_the_same():
    settings = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.9, "lr_schedule": LinearDecay(), "test_samples": 4}
    with pytest.warns(FutureWarning, match="^BayesianClassifier is called BayesianModule now"):
        old = BayesianClassifier(LeNet(), LRT(), **settings, only="fc3")
    assert isinstance(old, BayesianModule)
    assert (old.inference.lr, old.test_samples) == (0.01, 4)
    made = old.inference.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert (type(made), made.defaults["momentum"]) == (torch.optim.SGD, 0.9)
    assert isinstance(upgraded_arguments(settings)["inference"].optimizer, partial)


def test_a_record_of_format_1_is_todays():
    record = Record.read(FORMAT_1)
    assert record.contents["bnn_lightning"]["format_version"] == 2
    assert (record.epochs_done, record.global_step, record.can_go_on) == (2, 20, True)
    assert not record.is_finished()
    assert record.training.uninformed_score == 0.1
    assert record.training.caveats == ["tempered", "posterior not converged"]
    assert record.config["model"]["inference"]["init_args"]["samples"] == 2
    committed = Record.read(ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt")
    assert committed.training.caveats == []
    assert committed.training.score == pytest.approx(0.97848, abs=1e-5)


def test_buffers_that_other_priors_had_are_left_out():
    # Earlier releases saved mean and sigma of a normal prior beside a mixture too.
    for prior in (ScaleMixture(), LearntScale()):
        layer = bayesianize(torch.nn.Linear(3, 2), BBB(prior=prior))
        state = layer.state_dict() | {"weight.prior_mu": torch.zeros(()), "bias.prior_sigma": torch.ones(())}
        layer.load_state_dict(state)
        with pytest.raises(RuntimeError, match="Unexpected key"):
            layer.load_state_dict(state | {"weight.other": torch.zeros(())})


class TestOnTheCommandLine:
    pytestmark = ON_THE_COMMAND_LINE

    def test_a_run_that_was_stopped_before_the_change_ends_as_one_that_was_not(self, capsys):
        # Stopped by the release before in epoch 3, step 6 of 7; its run that was not stopped ended with these numbers.
        # On the machine that made them they are the same to the last bit; other processors round other sums.
        run = Path("checkpoints/stopped/version_0")
        run.mkdir(parents=True)
        shutil.copy(FORMAT_1, run / "last.ckpt")
        assert main(["fit", "--ckpt_path", str(run / "last.ckpt")]) == 0
        assert "Going on after epoch 2, 20 steps" in printed(capsys)
        last = table(Path("lightning_logs/stopped/version_0/metrics.csv"))[-1]
        expected = {"epoch": 4, "val/nll": 2.1113719940185547, "train/kl": 2292.018310546875, "lr": 0.0025}
        for name, value in expected.items():
            assert float(last[name]) == pytest.approx(value, rel=1e-4), name
        assert Record.read(run / "last.ckpt").is_finished()

    def test_earlier_names_on_the_command_line_are_said_once(self, capsys):
        words = ["--model.lr", "0.002", "--model.kl_weight.length", "0.5", "--model.test_samples", "3"]
        assert main(["fit", "--config", LENET, *SMALL, *words, "--trainer.fast_dev_run", "true"]) == 0
        errors = capsys.readouterr().err.splitlines()
        assert errors == [
            "bnn: model.lr is called model.inference.lr now.",
            "bnn: model.kl_weight.length is called model.inference.kl_weight.length now.",
            "bnn: model.test_samples is called model.sampling.test_samples now.",
        ]

    def test_an_earlier_config_file_may_name_files_beside_it(self):
        Path("sub").mkdir()
        Path("sub/data.yaml").write_text("class_path: MNIST5k\ninit_args: {train_subset: 600}\n")
        Path("sub/old.yaml").write_text("model: {network: LeNet, lr: 0.07}\ndata: data.yaml\n")
        assert main(["fit", "--config", "sub/old.yaml", "--trainer.fast_dev_run", "true"]) == 0

    def test_an_earlier_config_file_works(self, capsys):
        model = OLD_MODEL | {"method": {"class_path": "VariationalB", "init_args": {"noise_on": "B"}}, "only": "*"}
        Path("old.yaml").write_text(yaml.safe_dump({"model": model}))
        assert main(["fit", "--config", "old.yaml", *SMALL, "--trainer.max_epochs", "1", "--name", "old"]) == 0
        config = Record.read("checkpoints/old/version_0/last.ckpt").config["model"]
        assert config["sampling"] == NEW_MODEL["sampling"]
        assert config["inference"]["init_args"]["optimizer"]["init_args"]["momentum"] == 0.9
        assert "model.momentum is called model.inference.optimizer.momentum now." in printed(capsys)

    def test_the_earlier_class_reads_checkpoints(self):
        module = BayesianClassifier.from_checkpoint(ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt")
        assert type(module) is BayesianModule
        assert module.test_samples == 25
