"""A run that is stopped at any moment and goes on ends as if nothing had happened: each setting that has a state."""

import math
import os
import random
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fault_campaign import differences
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from bnn_lightning import BBB, IVON, LRT, SWAG, VBLL, Flipout, Laplace, MCDropout, Variational
from bnn_lightning.checkpoints.record import KEY, Record, read_checkpoint, write_checkpoint
from bnn_lightning.data import MNIST5k
from bnn_lightning.inference.kl_weights import LinearWarmup
from bnn_lightning.inference.learning_rates import LinearDecay, Plateau
from bnn_lightning.randomness import random_states
from bnn_lightning.training.callbacks import FiniteGuard, TrainingStoppedError
from bnn_lightning.training.saving import AtomicCheckpointIO, Calibrate, Checkpoints, RunInterruptedError, StopRequest
from tests.training.helpers import module

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


class KilledError(Exception):
    pass


def test_differences_between_states_are_found_by_their_place():
    state = {"a": [torch.ones(2), 1.0], "b": "x"}
    assert differences(state, {"a": [torch.ones(2), 1.0], "b": "x"}) == []
    assert differences(state, {"a": [torch.tensor([1.0, 1 + 1e-7]), 1.0], "b": "x"}) == ["/a/0"]
    assert sorted(differences(state, {"a": [torch.ones(2), 2.0], "b": "y"})) == ["/a/1", "/b"]
    assert differences(state, {"a": [torch.ones(2).double(), 1.0], "b": "x"}) == ["/a/0"]
    assert differences(state, {"a": [torch.ones(2), 1], "b": "x"}) == ["/a/1"]
    assert differences(state, {"a": [torch.ones(2)], "b": "x"}) == ["/a"]
    assert differences(state, {"a": [torch.ones(2), 1.0]}) == [""]


def classifier(method=None, **settings):
    torch.manual_seed(0)
    layers = (nn.MaxPool2d(4), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
    if "inference" not in settings:
        settings["lr"] = 0.01
    return module(nn.Sequential(*layers, nn.Linear(144, 10)), method, **settings)


def kill_at(model, step):
    """Raises at a training step, the first being 0."""
    left, original = [step], model.training_step

    def training_step(batch, batch_idx):
        if left[0] == 0:
            raise KilledError
        left[0] -= 1
        random.random(), np.random.rand()  # a user's own code may draw from these
        return original(batch, batch_idx)

    model.training_step = training_step


def train(folder, model, data, ckpt_path=None, calibrates=False, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    callbacks = [Checkpoints(folder, model.inference, every_n_steps=2)] + [Calibrate(folder)] * calibrates
    settings = {"max_epochs": 3} | quiet | settings
    trainer = Trainer(accelerator="cpu", callbacks=callbacks, plugins=[AtomicCheckpointIO()], **settings)
    random.seed(0)
    np.random.seed(0)
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


SETTINGS = {
    "LRT": ({"method": LRT(), "kl_weight": LinearWarmup(length=2), "lr_schedule": LinearDecay()}, {}, {}),
    "BBB, plateau": ({"method": BBB(), "lr_schedule": Plateau(patience=0)}, {}, {}),
    "Flipout, augmented": ({"method": Flipout()}, {"crop_padding": 2, "flip": True}, {}),
    "balanced, with transforms": (
        {"method": LRT()},
        {"sampling": "balanced", "flip": True, "transforms": [v2.RandomRotation(10), v2.RandomErasing()]},
        {},
    ),
    "2 batches a step": ({"method": LRT(), "samples": 2}, {}, {"accumulate_grad_batches": 2}),
    "validated twice an epoch": ({"method": MCDropout()}, {}, {"val_check_interval": 0.5}),
    "plateau, validated before the end": (
        {"method": LRT(), "lr_schedule": Plateau(patience=0)},
        {},
        {"val_check_interval": 3},
    ),
    "every second epoch validated": (
        {"method": LRT(), "lr_schedule": Plateau(patience=0)},
        {},
        {"check_val_every_n_epoch": 2},
    ),
    "IVON, batch norm beside it": ({"method": LRT(), "inference": IVON(lr=1.0, samples=2)}, {}, {}),
    "IVON, 2 batches a step": ({"method": BBB(), "inference": IVON(lr=1.0)}, {}, {"accumulate_grad_batches": 2}),
    "Laplace": ({"inference": Laplace(lr=0.01)}, {}, {}),
    "VBLL": ({"inference": VBLL(lr=0.01, covariance="dense")}, {}, {}),
    "SWAG": ({"inference": SWAG(collect_after=0.4, rank=3, collections_per_epoch=4)}, {}, {}),
    "SWAG, 2 batches a step": (
        {"inference": SWAG(collect_after=0.3, rank=3, collections_per_epoch=4)},
        {},
        {"accumulate_grad_batches": 2},
    ),
    "deterministic, bfloat16": ({}, {}, {"precision": "bf16-mixed"}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resumed_runs_end_bit_identical(name, tmp_path):
    model_settings, data_settings, trainer_settings = SETTINGS[name]
    steps = 8  # of 400 images in batches of 50

    def data():
        return MNIST5k(image_size=32, train_subset=500, batch_size=50, **data_settings)

    model = classifier(**model_settings)
    kill_at(model, 99)
    metrics = train(tmp_path / "alone", model, data(), **trainer_settings)
    expected = [read_checkpoint(tmp_path / "alone" / f"{part}.ckpt") for part in ("best", "last")]
    # Within an epoch, in its last step (saved before it, if at all), in the first of the next, before the first.
    for step in (3, steps + 5, 2 * steps - 1, 2 * steps, 1):
        folder = tmp_path / str(step)
        model = classifier(**model_settings)
        kill_at(model, step)
        with pytest.raises(KilledError):
            train(folder, model, data(), **trainer_settings)
        resumed = classifier(**model_settings)
        kill_at(resumed, 99)  # draws as the others do
        torch.manual_seed(step)  # whatever has been drawn since, it does not matter
        resumed_metrics = train(folder, resumed, data(), str(folder / "last.ckpt"), **trainer_settings)
        assert resumed_metrics == metrics
        for part, checkpoint in zip(("best", "last"), expected, strict=True):
            other = read_checkpoint(folder / f"{part}.ckpt")
            del other["loops"]
            assert differences({key: checkpoint[key] for key in checkpoint if key != "loops"}, other) == []


def test_killed_again_before_anything_was_saved(tmp_path):
    def data():
        return MNIST5k(image_size=32, train_subset=500, batch_size=50)

    train(tmp_path / "alone", classifier(LRT()), data())
    expected = read_checkpoint(tmp_path / "alone" / "last.ckpt")
    last = tmp_path / "killed" / "last.ckpt"
    for step, ckpt_path in ((8, None), (0, str(last)), (1, str(last))):  # between epochs, and twice at once
        model = classifier(LRT())
        kill_at(model, step)
        with pytest.raises(KilledError):
            train(last.parent, model, data(), ckpt_path)
    assert read_checkpoint(last)["global_step"] == 8
    other = tmp_path / "other" / "last.ckpt"  # in another folder it is saved before the first step
    model = classifier(LRT())
    kill_at(model, 1)
    with pytest.raises(KilledError):
        train(other.parent, model, data(), str(last))
    for file in (last, other):
        assert read_checkpoint(file)["global_step"] == 8
        train(file.parent, classifier(LRT()), data(), str(file))
        assert differences(expected["state_dict"], read_checkpoint(file)["state_dict"]) == []


def test_a_request_to_stop_waits_for_the_gradients_that_add_up_and_for_the_validation(tmp_path):
    def data():
        return MNIST5k(image_size=32, train_subset=500, batch_size=50)

    settings = {"accumulate_grad_batches": 2, "val_check_interval": 4}
    train(tmp_path / "alone", classifier(LRT()), data(), **settings)
    expected = read_checkpoint(tmp_path / "alone" / "last.ckpt")
    for asked_in, stopped_after in ((0, 2), (1, 2), (3, 6), (7, 8), (23, 24)):
        folder, model = tmp_path / str(asked_in), classifier(LRT())
        original, seen = model.training_step, []

        def training_step(batch, batch_idx, original=original, seen=seen, asked_in=asked_in):
            seen.append(batch_idx)
            if len(seen) == asked_in + 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(batch, batch_idx)

        model.training_step = training_step
        with pytest.raises(
            RunInterruptedError, match=r"^stopped by SIGTERM (in epoch 1, step \d of 8|after epoch [13])$"
        ):
            train(folder, model, data(), **settings)
        assert len(seen) == stopped_after
        assert read_checkpoint(folder / "last.ckpt")["global_step"] == stopped_after / 2
        if stopped_after < 24:
            train(folder, classifier(LRT()), data(), str(folder / "last.ckpt"), **settings)
        resumed = read_checkpoint(folder / "last.ckpt")
        assert differences(expected["state_dict"], resumed["state_dict"]) == []
        assert differences(expected["optimizer_states"], resumed["optimizer_states"]) == []
        assert differences(expected[KEY], resumed[KEY]) == []


def test_several_processes_agree_to_stop_and_do_so_at_the_next_rest(tmp_path):
    callback = Checkpoints(tmp_path, Variational(kl_weight=LinearWarmup()))
    callback._request.signum = signal.SIGTERM
    saved, asked = [], []
    strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: asked.append(decision) or decision)
    trainer = SimpleNamespace(
        world_size=2,
        strategy=strategy,
        accumulate_grad_batches=2,
        is_last_batch=False,
        loggers=[],
        val_check_batch=1000,
        fit_loop=SimpleNamespace(total_batch_idx=0),
        global_step=25,
        current_epoch=0,
        num_training_batches=1000,
        save_checkpoint=saved.append,
    )
    for batch_idx in range(49, 51):
        callback.on_train_batch_end(trainer, classifier(), None, None, batch_idx)
    with pytest.raises(RunInterruptedError, match="in epoch 1, step 52 of 1000"):
        callback.on_train_batch_end(trainer, classifier(), None, None, 51)
    assert (len(asked), saved) == (1, [tmp_path / "last.ckpt"])


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    model = classifier(LRT())
    model.network[1].weight.rho.register_hook(lambda gradient: gradient * (math.nan if model.global_step == 3 else 1))
    guards = [Checkpoints(tmp_path, model.inference, every_n_steps=1), FiniteGuard()]
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=guards,
        logger=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    with pytest.raises(TrainingStoppedError, match="step 5: "):
        trainer.fit(model, MNIST5k(image_size=32, train_subset=500, batch_size=50))
    checkpoint = read_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())


def test_a_run_made_longer_has_a_best_epoch_after_its_warm_up(tmp_path):
    weight, data = LinearWarmup(length=3), MNIST5k(image_size=32, train_subset=500, batch_size=50)
    train(tmp_path, classifier(LRT(), kl_weight=weight), data, max_epochs=2)
    assert Record.read(tmp_path / "best.ckpt").epochs_done == 2  # the last, for want of a settled one
    train(tmp_path, classifier(LRT(), kl_weight=weight), data, str(tmp_path / "last.ckpt"), max_epochs=4)
    assert Record.read(tmp_path / "best.ckpt").epochs_done == 4


def test_calibration_with_a_users_own_loader(tmp_path):
    class Own(MNIST5k):
        def calibration_dataloader(self):
            images = self.calibration
            x = (images.pixels / 255 - self.mean[0]) / self.std[0]
            return DataLoader(TensorDataset(x, images.labels), 25)

    train(tmp_path, classifier(LRT()), Own(image_size=32, train_subset=500, batch_size=50), calibrates=True)
    assert len(read_checkpoint(tmp_path / "last.ckpt")[KEY]["calibration"]["weights"]["correct"]) == 50


def test_random_states_lie_in_a_checkpoint_as_plain_values(tmp_path):
    write_checkpoint({KEY: {"format_version": 1}, "states": random_states(torch.device("cpu"))}, tmp_path / "a.ckpt")
    assert differences(read_checkpoint(tmp_path / "a.ckpt")["states"], random_states(torch.device("cpu"))) == []


def test_going_on_within_an_epoch_needs_the_same_batches(tmp_path):
    model = classifier(LRT())
    kill_at(model, 3)
    with pytest.raises(KilledError):
        train(tmp_path, model, MNIST5k(image_size=32, train_subset=500, batch_size=50))
    with pytest.raises(
        ValueError, match=r"^batch_size must be 50 to go on within an epoch, got 40; between epochs it can change\.$"
    ):
        train(
            tmp_path,
            classifier(LRT()),
            MNIST5k(image_size=32, train_subset=500, batch_size=40),
            str(tmp_path / "last.ckpt"),
        )


def test_a_classifier_that_was_loaded_and_trained_anew_starts_anew(tmp_path):
    # What a checkpoint says of the middle of an epoch is for the run that goes on, and for no other.
    model = classifier(LRT())
    kill_at(model, 3)
    data = MNIST5k(image_size=32, train_subset=500, batch_size=50)
    with pytest.raises(KilledError):
        train(tmp_path, model, data)
    loaded = classifier(LRT())
    loaded.on_load_checkpoint(read_checkpoint(tmp_path / "last.ckpt"))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    loaded.trainer = Trainer(logger=False, enable_checkpointing=False)
    loaded.on_train_batch_start(None, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded._sums is None


def test_a_wish_to_stop_is_of_one_run():
    request = StopRequest()
    request.signum = signal.SIGINT
    request.listen()
    request.stop_listening()
    assert request.signum is None
