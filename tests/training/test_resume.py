"""A run that is stopped at any moment and goes on ends as if nothing had happened."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fault_campaign import differences, outcome
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnn_lightning import BBB, LRT, BayesianClassifier, Flipout, MCDropout
from bnn_lightning.cli import main
from bnn_lightning.data import MNIST5k
from bnn_lightning.inference.kl_weights import LinearWarmup
from bnn_lightning.inference.learning_rates import LinearDecay, Plateau
from bnn_lightning.randomness import random_states, set_random_states
from bnn_lightning.training.callbacks import FiniteGuard, TrainingStoppedError
from bnn_lightning.training.checkpoints import KEY, epochs_done, read_checkpoint, write_checkpoint
from bnn_lightning.training.saving import Calibrate, Checkpoints, RunInterruptedError, StopRequest, WholeFiles
from tests.helpers import ROOT

LENET = str(ROOT / "configs" / "lenet_lrt.yaml")
SMALL = ["--data", "MNIST5k", "--data.train_subset", "600", "--data.batch_size", "100"]  # 5 steps an epoch
NAME = "lenet_lrt"
LAST = f"checkpoints/{NAME}/version_0/last.ckpt"
BEST = f"checkpoints/{NAME}/version_0/best.ckpt"

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # main() sets filters of its own, which pytest's would undo
    pytest.mark.usefixtures("in_an_empty_folder"),
]


class KilledError(Exception):
    pass


def test_differences_are_found():
    one = {"a": [torch.ones(2), 1.0], "b": "x"}
    assert differences(one, {"a": [torch.ones(2), 1.0], "b": "x"}) == []
    assert differences(one, {"a": [torch.tensor([1.0, 1 + 1e-7]), 1.0], "b": "x"}) == ["/a/0"]
    assert sorted(differences(one, {"a": [torch.ones(2), 2.0], "b": "y"})) == ["/a/1", "/b"]
    assert differences(one, {"a": [torch.ones(2).double(), 1.0], "b": "x"}) == ["/a/0"]
    assert differences(one, {"a": [torch.ones(2), 1], "b": "x"}) == ["/a/1"]
    assert differences(one, {"a": [torch.ones(2)], "b": "x"}) == ["/a"]
    assert differences(one, {"a": [torch.ones(2), 1.0]}) == [""]


# The Python interface: each setting that has a state of its own


def classifier(method=None, **settings):
    torch.manual_seed(0)
    layers = (nn.MaxPool2d(4), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
    return BayesianClassifier(nn.Sequential(*layers, nn.Linear(144, 10)), method, lr=0.01, **settings)


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
    callbacks = [Checkpoints(folder, model.kl_weight, every_n_steps=2)] + [Calibrate(folder)] * calibrates
    settings = {"max_epochs": 3} | quiet | settings
    trainer = Trainer(accelerator="cpu", callbacks=callbacks, plugins=[WholeFiles()], **settings)
    random.seed(0)
    np.random.seed(0)
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


SETTINGS = {
    "LRT": ({"method": LRT(), "kl_weight": LinearWarmup(length=2), "lr_schedule": LinearDecay()}, {}, {}),
    "BBB, plateau": ({"method": BBB(), "lr_schedule": Plateau(patience=0)}, {}, {}),
    "Flipout, augmented": ({"method": Flipout()}, {"crop_padding": 2, "flip": True}, {}),
    "2 batches a step": ({"method": LRT(), "train_samples": 2}, {}, {"accumulate_grad_batches": 2}),
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
    "deterministic, bfloat16": ({}, {}, {"precision": "bf16-mixed"}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resumed_runs_end_bit_identical(name, tmp_path):
    of_model, of_data, of_trainer = SETTINGS[name]
    steps = 8  # of 400 images in batches of 50

    def data():
        return MNIST5k(image_size=32, train_subset=500, batch_size=50, **of_data)

    model = classifier(**of_model)
    kill_at(model, 99)
    metrics = train(tmp_path / "alone", model, data(), **of_trainer)
    expected = [read_checkpoint(tmp_path / "alone" / f"{part}.ckpt") for part in ("best", "last")]
    # Within an epoch, in its last step (saved before it, if at all), in the first of the next, before the first.
    for step in (3, steps + 5, 2 * steps - 1, 2 * steps, 1):
        folder = tmp_path / str(step)
        model = classifier(**of_model)
        kill_at(model, step)
        with pytest.raises(KilledError):
            train(folder, model, data(), **of_trainer)
        resumed = classifier(**of_model)
        kill_at(resumed, 99)  # draws as the others do
        torch.manual_seed(step)  # whatever has been drawn since, it does not matter
        found = train(folder, resumed, data(), str(folder / "last.ckpt"), **of_trainer)
        assert found == metrics
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
        found = read_checkpoint(folder / "last.ckpt")
        assert differences(expected["state_dict"], found["state_dict"]) == []
        assert differences(expected["optimizer_states"], found["optimizer_states"]) == []
        assert differences(expected[KEY], found[KEY]) == []


def test_several_processes_agree_to_stop_and_do_so_at_the_next_rest(tmp_path):
    callback = Checkpoints(tmp_path, LinearWarmup())
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
    guards = [Checkpoints(tmp_path, model.kl_weight, every_n_steps=1), FiniteGuard()]
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
    assert epochs_done(read_checkpoint(tmp_path / "best.ckpt")) == 2  # the last, for want of a settled one
    train(tmp_path, classifier(LRT(), kl_weight=weight), data, str(tmp_path / "last.ckpt"), max_epochs=4)
    assert epochs_done(read_checkpoint(tmp_path / "best.ckpt")) == 4


def test_calibration_with_a_users_own_loader(tmp_path):
    class Own(MNIST5k):
        def calibration_dataloader(self):
            images = self.calibration
            x = (images.pixels / 255 - self.mean[0]) / self.std[0]
            return DataLoader(TensorDataset(x, images.labels), 25)

    train(tmp_path, classifier(LRT()), Own(image_size=32, train_subset=500, batch_size=50), calibrates=True)
    assert len(read_checkpoint(tmp_path / "last.ckpt")[KEY]["calibration"]["weights"]["correct"]) == 50


def test_random_states_of_all_generators():
    states = random_states(torch.device("cpu"))

    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.randn(1).item()

    first = draw()
    assert draw() != first
    set_random_states(states, torch.device("cpu"))
    assert draw() == first


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
    again = classifier(LRT())
    again.on_load_checkpoint(read_checkpoint(tmp_path / "last.ckpt"))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again.trainer = Trainer(logger=False, enable_checkpointing=False)
    again.on_train_batch_start(None, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert again._sums is None


# The command line


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a run of three epochs leaves behind when nothing happens to it."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", LENET, *SMALL, *EPOCHS]) == 0
    return outcome(folder, NAME)


EPOCHS = ["--trainer.max_epochs", "3", "--save_every_n_steps", "2"]


def start(words, before=""):
    """The command line in a process of its own, with ``before`` run in front of it."""
    code = f"import sys\n{before}\nfrom bnn_lightning.cli import main\nsys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


KILL_AT_REPLACE = """
import os, signal
calls, replace = [0], os.replace
def killed(*args):
    calls[0] += 1
    if calls[0] == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*args)
os.replace = killed
"""


@pytest.mark.parametrize(("call", "steps"), [(3, 2), (5, 4)], ids=["within the first epoch", "after it"])
def test_killed_between_writing_a_checkpoint_and_putting_it_in_place(alone, call, steps):
    # benchmarks/fault_campaign.py does this, and worse, many times over. After the epoch its curves are on the disk
    # already, and are drawn again.
    process = start(["fit", "--config", LENET, *SMALL, *EPOCHS], KILL_AT_REPLACE.format(call=call))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = sorted(path.name.rsplit(".", 1)[0] for path in Path(LAST).parent.iterdir())
    assert left == [".last.ckpt", "last"]
    assert read_checkpoint(LAST)["global_step"] == steps
    time.sleep(1)  # TensorBoard takes files in the order of the seconds in their names
    assert main(["fit", "--ckpt_path", LAST]) == 0
    assert sorted(path.name for path in Path(LAST).parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert differences(alone, outcome(Path(), NAME)) == []


def test_a_run_killed_while_it_is_calibrated_is_calibrated_when_it_goes_on(alone, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(BayesianClassifier, "calibrated", lambda *_: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            main(["fit", "--config", LENET, *SMALL, *EPOCHS])
    assert "calibration" not in read_checkpoint(LAST)[KEY]
    assert main(["fit", "--ckpt_path", LAST]) == 0
    assert differences(alone, outcome(Path(), NAME)) == []
    assert main(["fit", "--ckpt_path", LAST]) == 2
    assert "has finished its 3 epochs; go on with a larger --trainer.max_epochs." in capsys.readouterr().err


def test_a_wish_to_stop_is_of_one_run():
    request = StopRequest()
    request.signum = signal.SIGINT
    request.listen()
    request.stop_listening()
    assert request.signum is None


@pytest.mark.parametrize(("signum", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(signum, name, alone, capsys):
    process = start(["fit", "--config", LENET, *SMALL, *EPOCHS, "--trainer.max_epochs", "3"], SLOW_STEPS)
    while not Path(LAST).is_file() or read_checkpoint(LAST)["global_step"] < 6:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert err.startswith(f"bnn: stopped by {name} in epoch 2, step ") or err.startswith(
        f"bnn: stopped by {name} after"
    )
    assert err.endswith(f"Go on with: bnn fit --ckpt_path {LAST}\n")
    assert "Traceback" not in out + err
    assert main(["fit", "--ckpt_path", LAST]) == 0
    assert "Going on after epoch 1, " in capsys.readouterr().out
    assert differences(alone, outcome(Path(), NAME)) == []


SLOW_STEPS = """
import time
from bnn_lightning.training.module import BayesianClassifier
step = BayesianClassifier.training_step
BayesianClassifier.training_step = lambda self, *args: time.sleep(0.1) or step(self, *args)
"""


def test_the_second_ctrl_c_stops_at_once():
    never = "import time\nfrom bnn_lightning.training.module import BayesianClassifier\n"
    never += "BayesianClassifier.training_step = lambda self, batch, batch_idx: time.sleep(600)"
    process = start(["fit", "--config", LENET, *SMALL, *EPOCHS], never)
    while not Path(LAST).is_file():
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"bnn: stopped at once. Go on with: bnn fit --ckpt_path {LAST}\n"


def test_what_cannot_change_when_a_run_goes_on(capsys):
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1"]) == 0
    capsys.readouterr()
    more = ["fit", "--ckpt_path", LAST, "--trainer.max_epochs", "2"]
    Path("c.yaml").write_text(f"ckpt_path: {LAST}\n")
    in_config = f"--ckpt_path {LAST} stands in a config; it goes on the command line."
    for words, sentence in (
        ([*more, "--model.lr", "0.5"], "--model.lr is 0.001 to the end of a run that goes on, got 0.5."),
        ([*more, "--name", "../x"], "--name must be the name of a folder, without /, got ../x."),
        (["fit", "--config", LENET, "--config", "c.yaml"], in_config),
    ):
        assert main(words) == 2
        assert capsys.readouterr().err == f"bnn: error: {sentence}\n"


def test_training_on_from_an_earlier_checkpoint_keeps_what_came_after_it(capsys):
    words = ["--model.kl_weight.length", "0", "--model.lr", "0.05"]
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "2", *words]) == 0
    write_checkpoint(read_checkpoint(LAST), Path(BEST))
    assert main(["fit", "--ckpt_path", LAST, "--trainer.max_epochs", "3"]) == 0
    kept = Path(LAST).read_bytes()
    capsys.readouterr()
    assert main(["fit", "--ckpt_path", BEST, "--trainer.max_epochs", "3"]) == 0
    assert Path(LAST).read_bytes() == kept
    assert "Going on after epoch 2, 10 steps, in checkpoints/lenet_lrt/version_1" in capsys.readouterr().out
    assert epochs_done(read_checkpoint(LAST.replace("version_0", "version_1"))) == 3


def test_a_run_is_trained_by_one_process_at_a_time(capsys):
    assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "1"]) == 0
    holds = f"from bnn_lightning.training.runs import Run\nwith Run.of_checkpoint({LAST!r}).locked():\n"
    holds += "    print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", f"import sys\n{holds}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    more = ["fit", "--ckpt_path", LAST, "--trainer.max_epochs", "2"]
    assert main(more) == 2
    assert f"--ckpt_path {LAST}: its run is being trained by another process." in capsys.readouterr().err
    os.kill(other.pid, signal.SIGKILL)  # who dies holds nothing
    other.communicate()
    assert main(more) == 0


def test_the_same_seed_gives_the_same_run_in_another_process(alone):
    process = start(["fit", "--config", LENET, *SMALL, *EPOCHS])
    process.communicate()
    assert process.returncode == 0
    assert differences(alone, outcome(Path(), NAME)) == []
