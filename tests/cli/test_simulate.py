"""``bnn simulate``: loops that are stopped and go on, and those that make no sense."""

import csv
import shutil
from pathlib import Path

import pytest

from bnn_lightning.cli import first_error, main
from tests.helpers import ON_THE_COMMAND_LINE, ROOT, printed, table

pytestmark = ON_THE_COMMAND_LINE


def test_a_simulation_that_is_stopped_ends_in_the_same_table(fake_mnist, capsys):
    words = ["simulate", "--model.network", "LeNet300100", "--model.method", "MCDropout", "--model.members", "2"]
    words += ["--data", "MNIST", "--data.root", fake_mnist(train=200, test=50), "--data.val_split", "0"]
    words += ["--model.sampling.test_samples", "4", "--steps", "3", "--count", "2", "--budget", "26"]
    for retrain in ("afresh", "continued"):
        own = [*words, "--retrain", retrain, "--by", "random" if retrain == "afresh" else "epig"]
        assert main([*own, "--name", retrain]) == 0
        whole = Path(f"lightning_logs/{retrain}/version_0/rounds.csv")
        assert [row["labels"] for row in table(whole)] == ["20", "22", "24", "26"]
        if retrain == "afresh":
            # As a loop that was killed after its second round has left it.
            stopped = Path(shutil.copytree(whole.parent, "stopped"))
            (stopped / "rounds.csv").write_text("".join(whole.read_text().splitlines(keepends=True)[:3]))
            assert main([*own, "--go_on", "stopped"]) == 0
            assert without_time(stopped / "rounds.csv") == without_time(whole)
            assert main([*own, "--go_on", "stopped", "--steps", "4"]) == 2
            assert "--go_on stopped was begun with another steps" in printed(capsys)

            def interrupted(_):
                raise KeyboardInterrupt

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("bnn_lightning.simulation.loop.Loop.run", interrupted)
                assert main([*own, "--go_on", "stopped"]) == 130
            assert "bnn: stopped. Go on by the same command with --go_on stopped" in printed(capsys)
        else:
            assert [path.name for path in sorted(whole.parent.glob("weights_*"))] == ["weights_2.pt", "weights_3.pt"]
            stopped = Path(shutil.copytree(whole.parent, "later"))
            (stopped / "rounds.csv").write_text("".join(whole.read_text().splitlines(keepends=True)[:4]))
            assert main([*own, "--go_on", "later"]) == 0
            assert without_time(stopped / "rounds.csv") == without_time(whole)


def without_time(path):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(path.open())]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--data.val_split", "0.2"],
            "--data.val_split must be 0, for a hold-out would be labelled beyond the budget.",
        ),
        (["--data.class_weights", "balanced"], "--data.class_weights must be null, for it needs labels that are not"),
        (["--data.sampling", "balanced"], "--data.sampling must be null, for it needs labels that are not bought yet"),
        (["--model.init_from", "a.ckpt"], "--model.init_from must be null: a loop begins with new weights."),
        (["--trainer.precision", "bf16-mixed"], "--trainer.precision must be 32-true, for a loop trains without"),
        (
            ["--model.method", "VariationalA", "--by", "batchbald"],
            "--by batchbald needs the same draws for every image, got draws that differ between images; --by bald",
        ),
        (["--model.sampling.draws", "mean", "--by", "bald"], "--by must be entropy, variation_ratio or random for one"),
        (["--budget", "5"], "--budget must be at least the 20 labels of the start, got 5."),
        (["--size", "9000"], "--size must be at most the 200 training images, got 9,000."),
        (["--foreign", "1"], "--foreign must leave enough pictures of --data.ood, 200 of them, got 0."),
        (["--rare", "0"], "--rare must be a share above 0"),
        (["--per_class", "90"], "--per_class must be at most the images of each class, got 90"),
    ],
)
def test_simulations_that_make_no_sense(fake_mnist, capsys, words, sentence):
    base = ["simulate", "--model.network", "LeNet300100", "--data", "MNIST", "--data.root", fake_mnist()]
    assert main([*base, "--data.val_split", "0", "--by", "random", *words]) == 2
    assert sentence in printed(capsys)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "acquisition").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_of_simulations_are_ones(path):
    assert first_error(["simulate", "--config", str(path)]) == ""
