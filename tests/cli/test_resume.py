"""``bnn fit --ckpt_path``: runs that are killed, asked to stop, or in the way of each other, and go on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_campaign import differences, outcome

from bnn_lightning import BayesianModule
from bnn_lightning.checkpoints.record import KEY, Record, read_checkpoint, write_checkpoint
from bnn_lightning.cli import main
from tests.helpers import LENET, ON_THE_COMMAND_LINE, SMALL, table

FIVE_STEPS = [*SMALL, "--data.batch_size", "100"]  # an epoch
NAME = "lenet_lrt_mnist5k"
LAST = f"checkpoints/{NAME}/version_0/last.ckpt"
BEST = f"checkpoints/{NAME}/version_0/best.ckpt"
pytestmark = ON_THE_COMMAND_LINE


class KilledError(BaseException):
    pass


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a run of three epochs leaves behind when nothing happens to it."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", LENET, *FIVE_STEPS, *EPOCHS]) == 0
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


KILL_BEFORE_THE_LAST_FILE = """
import os, signal
from bnn_lightning.training.saving import Checkpoints
save = Checkpoints._save
def killed(self, trainer, name):
    if name == "last" and trainer.global_step == 15:
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, trainer, name)
Checkpoints._save = killed
"""


@pytest.mark.slow
def test_a_run_killed_before_its_last_file_draws_nothing_twice(alone):
    process = start(["fit", "--config", LENET, *FIVE_STEPS, *EPOCHS], KILL_BEFORE_THE_LAST_FILE)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert read_checkpoint(LAST)["global_step"] < 15
    time.sleep(1)  # TensorBoard takes files in the order of the seconds in their names
    assert main(["fit", "--ckpt_path", LAST]) == 0
    assert differences(alone, outcome(Path(), NAME)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("call", "steps"), [(3, 2), (5, 4)], ids=["within the first epoch", "after it"])
def test_a_run_killed_between_writing_a_checkpoint_and_putting_it_in_place_goes_on(alone, call, steps):
    # benchmarks/fault_campaign.py does this, and worse, many times over. After the epoch its curves are on the disk
    # already, and are drawn again.
    process = start(["fit", "--config", LENET, *FIVE_STEPS, *EPOCHS], KILL_AT_REPLACE.format(call=call))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    files = sorted(path.name.rsplit(".", 1)[0] for path in Path(LAST).parent.iterdir())
    assert files == [".last.ckpt", "last"]
    assert read_checkpoint(LAST)["global_step"] == steps
    time.sleep(1)  # TensorBoard takes files in the order of the seconds in their names
    assert main(["fit", "--ckpt_path", LAST]) == 0
    assert sorted(path.name for path in Path(LAST).parent.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert differences(alone, outcome(Path(), NAME)) == []


def test_a_run_killed_while_it_is_calibrated_is_calibrated_when_it_goes_on(alone, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(BayesianModule, "calibrated", lambda *_: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            main(["fit", "--config", LENET, *FIVE_STEPS, *EPOCHS])
    assert "calibration" not in read_checkpoint(LAST)[KEY]
    assert main(["fit", "--ckpt_path", LAST]) == 0
    assert differences(alone, outcome(Path(), NAME)) == []
    assert main(["fit", "--ckpt_path", LAST]) == 2
    assert "has finished its 3 epochs; go on with a larger --trainer.max_epochs." in capsys.readouterr().err
    assert main(["fit", "--ckpt_path", LAST, "--trainer.max_epochs", "2"]) == 2
    assert f"--trainer.max_epochs must be 3 or more, as {LAST} has, got 2." in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on(signum, name, alone, capsys):
    process = start(["fit", "--config", LENET, *FIVE_STEPS, *EPOCHS, "--trainer.max_epochs", "3"], SLOW_STEPS)
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
from bnn_lightning.training.module import BayesianModule
step = BayesianModule.training_step
BayesianModule.training_step = lambda self, *args: time.sleep(0.1) or step(self, *args)
"""


@pytest.mark.slow
def test_the_second_ctrl_c_stops_at_once():
    never = "import time\nfrom bnn_lightning.training.module import BayesianModule\n"
    never += "BayesianModule.training_step = lambda self, batch, batch_idx: time.sleep(600)"
    process = start(["fit", "--config", LENET, *FIVE_STEPS, *EPOCHS], never)
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
    assert err == f"bnn: stopped by SIGINT. Go on with: bnn fit --ckpt_path {LAST}\n"


def test_a_run_that_goes_on_keeps_its_settings_and_its_name(capsys):
    assert main(["fit", "--config", LENET, *FIVE_STEPS, "--trainer.max_epochs", "1"]) == 0
    capsys.readouterr()
    one_more_epoch = ["fit", "--ckpt_path", LAST, "--trainer.max_epochs", "2"]
    Path("c.yaml").write_text(f"ckpt_path: {LAST}\n")
    in_config = f"--ckpt_path {LAST} stands in a config; it goes on the command line."
    for words, sentence in (
        (
            [*one_more_epoch, "--model.inference.lr", "0.5"],
            "--model.inference.lr is 0.001 to the end of a run that goes on, got 0.5.",
        ),
        ([*one_more_epoch, "--name", "../x"], "--name must be the name of a folder, without /, got ../x."),
        (["fit", "--config", LENET, "--config", "c.yaml"], in_config),
    ):
        assert main(words) == 2
        assert capsys.readouterr().err == f"bnn: error: {sentence}\n"


@pytest.mark.slow
def test_training_on_from_an_earlier_checkpoint_keeps_what_came_after_it(capsys):
    words = ["--model.inference.kl_weight.length", "0", "--model.inference.lr", "0.05"]
    assert main(["fit", "--config", LENET, *FIVE_STEPS, "--trainer.max_epochs", "2", *words]) == 0
    write_checkpoint(read_checkpoint(LAST), Path(BEST))
    assert main(["fit", "--ckpt_path", LAST, "--trainer.max_epochs", "3"]) == 0
    content = Path(LAST).read_bytes()
    capsys.readouterr()
    assert main(["fit", "--ckpt_path", BEST, "--trainer.max_epochs", "3"]) == 0
    assert Path(LAST).read_bytes() == content
    assert "Going on after epoch 2, 10 steps, in checkpoints/lenet_lrt_mnist5k/version_1" in capsys.readouterr().out
    assert Record.read(LAST.replace("version_0", "version_1")).epochs_done == 3


def test_a_run_is_trained_by_one_process_at_a_time(capsys):
    assert main(["fit", "--config", LENET, *FIVE_STEPS, "--trainer.max_epochs", "1"]) == 0
    holds = f"from bnn_lightning.training.runs import Run\nwith Run.from_checkpoint({LAST!r}).locked():\n"
    holds += "    print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", f"import sys\n{holds}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    one_more_epoch = ["fit", "--ckpt_path", LAST, "--trainer.max_epochs", "2"]
    assert main(one_more_epoch) == 2
    assert f"--ckpt_path {LAST}: its run is being trained by another process." in capsys.readouterr().err
    os.kill(other.pid, signal.SIGKILL)  # who dies holds nothing
    other.communicate()
    assert main(one_more_epoch) == 0


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_in_another_process(alone):
    process = start(["fit", "--config", LENET, *FIVE_STEPS, *EPOCHS])
    process.communicate()
    assert process.returncode == 0
    assert differences(alone, outcome(Path(), NAME)) == []


def test_a_run_whose_rate_was_found_goes_on_with_it(capsys):
    finder = ["--trainer.callbacks", "LearningRateFinder", "--trainer.callbacks.num_training_steps", "30"]
    words = ["--data.batch_size", "40", "--trainer.max_epochs", "3", "--name", "found"]
    assert main(["fit", "--config", LENET, *SMALL, *finder, *words]) == 0
    last = "checkpoints/found/version_0/last.ckpt"
    before = table(Path("lightning_logs/found/version_0/metrics.csv"))
    assert main(["fit", "--ckpt_path", last, "--trainer.max_epochs", "4"]) == 0
    after = table(Path("lightning_logs/found/version_0/metrics.csv"))
    assert after[:3] == before
    found = float(before[0]["lr"])
    assert float(after[3]["lr"]) == pytest.approx(found / 4)  # LinearDecay over the longer run
