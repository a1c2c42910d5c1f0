"""Training and testing on classes of different size, on the command line."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnn_lightning.checkpoints.record import KEY, read_checkpoint
from bnn_lightning.cli import main
from tests.helpers import ON_THE_COMMAND_LINE, SMALL, printed, table

pytestmark = ON_THE_COMMAND_LINE
FIT = ["fit", "--model.network", "LeNet", "--trainer.max_epochs", "1", "--name", "a"]
TRANSFORMS = "[{class_path: torchvision.transforms.v2.RandomRotation, init_args: {degrees: 10}}, RandomErasing]"


def write_pets():
    """Pictures of three classes, of which one has nearly all, with names that are no Latin, markup or formula."""
    rng = np.random.default_rng(0)
    for name, count in (("_кошка", 90), ("$[red]dog$", 12), ("猫", 2)):
        for number in range(count):
            file = Path("pets", name, f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(file)


def test_a_test_shows_classes_and_says_when_a_model_only_knows_the_majority(capsys):
    write_pets()
    assert main([*FIT, "--data", "ImageFolder", "--data.root", "pets", "--data.class_weights", "balanced"]) == 0
    assert "class weights." in printed(capsys)
    assert main(["test", "--ckpt_path", "checkpoints/a/version_0/last.ckpt"]) == 0
    out = printed(capsys)
    logs = Path("lightning_logs/a/version_0")
    results = json.loads((logs / "test_imagefolder_last.json").read_text())
    names = [row["name"] for row in results["per_class"]]
    assert names == sorted(["_кошка", "$[red]dog$", "猫"])
    assert sum(map(sum, results["confusion_matrix"])) == results["images"] == 21
    recalls = [row["accuracy"] for row in results["per_class"] if row["images"]]
    assert np.isclose(results["predictions"]["samples"]["balanced_accuracy"], np.mean(recalls))
    majority = "not shown to be more accurate than always _кошка (90.5 % of the images)"
    assert majority in results["caveats"]
    assert "no images of 1 of 3 classes (猫)" in results["caveats"]
    assert any(caveat.startswith("ECE of only 21 images") for caveat in results["caveats"])
    words = " ".join(out.split())
    assert all(text in words for text in (majority, "balanced accuracy", "macro F1", "$[red]dog$", "mistaken for"))
    for ending in ("classes.csv", "confusion.csv", "confusion.png"):
        assert (logs / f"test_imagefolder_last_{ending}").is_file()
        assert f", _{ending}" in words
    assert [row["label / predicted"] for row in table(logs / "test_imagefolder_last_confusion.csv")] == names
    drawn, texts = set(), set()
    for events in logs.glob("events*"):
        board = EventAccumulator(str(events)).Reload()
        drawn |= set(board.Tags()["images"])
        texts |= {tag for tag in board.Tags()["tensors"] if "classes" in tag}
    assert "test_imagefolder_last_confusion" in drawn
    assert texts == {"test_imagefolder_last_classes/text_summary"}


def test_transforms_and_constants_of_the_command_line_are_in_the_checkpoint(capsys):
    words = ["--data.transforms", TRANSFORMS, "--data.mean", "0.13", "--data.std", "[0.31]"]
    assert main([*FIT, *SMALL, *words, "--data.sampling", "balanced", "--model.likelihood.label_smoothing", "0.1"]) == 0
    out = printed(capsys)
    assert "N = 480" in out
    assert "last: balanced sampling, label smoothing 0.1." in out
    record = read_checkpoint("checkpoints/a/version_0/last.ckpt")[KEY]
    rotation, erasing = record["config"]["data"]["init_args"]["transforms"]
    assert rotation["init_args"]["degrees"] == 10
    assert erasing["class_path"] == "torchvision.transforms.v2.RandomErasing"
    assert (record["data"]["mean"], record["data"]["std"]) == ([0.13], [0.31])
    assert main(["test", "--ckpt_path", "checkpoints/a/version_0/last.ckpt"]) == 0
    assert main(["fit", "--ckpt_path", "checkpoints/a/version_0/last.ckpt", "--trainer.max_epochs", "2"]) == 0
    assert "Going on after epoch 1" in printed(capsys)


def test_what_cannot_be_used_is_refused_in_a_sentence(capsys):
    for words, sentence in (
        (
            ["--data.transforms", "[{class_path: torchvision.transforms.v2.Resize, init_args: {size: 20}}]"],
            "--data.transforms must keep the shape and type of images, got Resize, which makes 1x20x20 uint8",
        ),
        (["--data.transforms", "[torchvision.transforms.v2.MixUp]"], "--data.transforms must leave labels as they are"),
        (["--data.mean", "0.5"], "--data.mean must be given together with std, got 0.5 and None."),
        (
            ["--data.sampling", "balanced", "--data.class_weights", "balanced"],
            "--data.sampling must be null with class_weights, got balanced",
        ),
        (["--model.likelihood.label_smoothing", "2"], "--model.likelihood.label_smoothing must be from 0 to below 1"),
    ):
        assert main([*FIT, *SMALL, *words]) == 2
        assert sentence in printed(capsys)
        assert not Path("checkpoints").exists()
