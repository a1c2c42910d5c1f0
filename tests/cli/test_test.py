"""``bnn test``: its numbers and files, and the images on which it would measure nothing."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnn_lightning.checkpoints.record import KEY, read_checkpoint
from bnn_lightning.cli import main
from bnn_lightning.data import ImageFolder
from tests.helpers import ON_THE_COMMAND_LINE, printed, table, write_idx

pytestmark = ON_THE_COMMAND_LINE


def test_a_checkpoint_alone_can_be_tested(run, capsys):
    assert main(["test", "--ckpt_path", str(run / "best.ckpt")]) == 0
    out = printed(capsys)
    results = json.loads(Path("lightning_logs/lenet_lrt_mnist5k/version_0/test_mnist5k_best.json").read_text())
    assert results["images"] == 1000
    assert list(results["predictions"]) == ["samples", "one_sample", "mean_weights"]
    assert "posterior not converged" in results["caveats"]
    assert results["training"]["num_train"] == 480
    assert "Note: posterior not converged." in out
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/test_mnist5k_best.csv"))
    assert float(rows[0]["accuracy"]) == results["predictions"]["samples"]["accuracy"]
    assert float(rows[0]["elbo_per_n"]) == results["training"]["elbo_per_n"]


def test_flags_win_over_the_checkpoint(run, capsys):
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), "--model.sampling.test_samples", "50"]) == 0
    out = printed(capsys)
    assert "50 weight draws" in out
    assert "calibrated with 25 samples" in out


@pytest.mark.slow
def test_testing_twice_gives_the_same_numbers(run, capsys):
    for _ in range(2):
        assert main(["test", "--ckpt_path", str(run / "best.ckpt")]) == 0
    logs = Path("lightning_logs/lenet_lrt_mnist5k/version_0")
    texts = [(logs / f"test_mnist5k_best{ending}.json").read_text() for ending in ("", "_1")]
    assert texts[0] == texts[1]


def test_a_checkpoint_is_not_tested_on_images_it_was_trained_on(run, capsys):
    checkpoint = read_checkpoint(run / "best.ckpt")
    checkpoint[KEY]["data"]["name"] = "MNIST"
    torch.save(checkpoint, "other.ckpt")
    assert main(["test", "--ckpt_path", "other.ckpt"]) == 2
    assert "its images are MNIST training images, which this checkpoint may have been trained on" in printed(capsys)
    assert main(["predict", "--ckpt_path", "other.ckpt"]) == 0


def test_a_checkpoint_is_not_tested_on_other_classes(run, capsys):
    rows = torch.randint(0, 256, (50, 28, 28)).numpy()
    write_idx(Path("data/notMNIST/t10k-images-idx3-ubyte"), rows)
    write_idx(Path("data/notMNIST/t10k-labels-idx1-ubyte"), torch.arange(50).numpy() % 10)
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), "--data", "NotMNIST"]) == 2
    assert "as the checkpoint's MNIST5k, got A, B, C and 7 more in NotMNIST" in printed(capsys)
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt"), "--data", "NotMNIST"]) == 0


def test_fast_dev_run_of_a_checkpoint_leaves_nothing_behind(run, capsys):
    before = sorted(Path().rglob("*"))
    for verb in ("test", "predict"):
        assert main([verb, "--ckpt_path", str(run / "last.ckpt"), "--trainer.fast_dev_run", "true"]) == 0
    assert "500 predictions, which are not written" in printed(capsys)
    assert sorted(Path().rglob("*")) == before


def test_a_folder_or_a_table_that_has_changed_is_not_divided_anew(capsys):
    """One picture or row more, and the seed would put others into the test set, those of training among them."""
    for label in "ab":
        for number in range(10):
            file = Path(f"photos/{label}/{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (32, 32), 100 * (label == "b") + number).save(file)
    table = "a,b\n" + "\n".join(f"{n},{n * n % 7}" for n in range(40))
    Path("test.csv").write_text(table)  # which is no function of a module
    quick = ["--trainer.max_epochs", "1", "--name"]
    assert main(["fit", "--model.network", "LeNet", "--data", "ImageFolder", "--data.root", "photos", *quick, "p"]) == 0
    words = [
        "--model.network",
        "TabularMLP",
        "--model.likelihood",
        "Gaussian",
        "--data",
        "Table",
        "--data.path",
        "test.csv",
    ]
    assert main(["fit", *words, *quick, "t"]) == 0
    checkpoints = [f"checkpoints/{name}/version_0/last.ckpt" for name in "pt"]
    for checkpoint in checkpoints:
        assert main(["test", "--ckpt_path", checkpoint]) == 0
        assert main(["validate", "--ckpt_path", checkpoint]) == 0
    Path("photos/a/0.png").rename("photos/a/new.png")
    Path("test.csv").write_text(f"{table}\n5,5")
    Path("test").mkdir()  # a package of that name does not make a function of test.csv
    capsys.readouterr()
    for checkpoint, flag in zip(checkpoints, ("--data.root photos", "--data.path test.csv"), strict=True):
        for words in (["test"], ["validate"], ["predict"], ["laplace"], ["fit", "--trainer.max_epochs", "2"]):
            assert main([*words, "--ckpt_path", checkpoint]) == 2
            assert f"{flag} has changed since the training, and the seed now divides other" in printed(capsys)
    Path("photos/a/new.png").rename("photos/a/0.png")
    assert main(["test", "--ckpt_path", checkpoints[0]]) == 0
    Path("photos/a/0.png").unlink()  # and what followed was numbered anew
    Path("photos/a/1.png").rename("photos/a/0.png")
    Image.linear_gradient("L").save("photos/a/1.png")
    assert main(["laplace", "--ckpt_path", checkpoints[0]]) == 2
    assert "--data.root photos has changed since the training" in printed(capsys)


@pytest.mark.parametrize("removed", ["a/7.png", "b/0.png"])
def test_training_images_in_a_changed_copy_are_counted(removed, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    for number, pixels in enumerate(noise):
        for root in ("photos", "moved", "copy"):
            file = Path(root, "ab"[number % 2], f"{number // 2}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    Path("copy", removed).unlink()
    words = ["--data", "ImageFolder", "--data.root", "photos", "--trainer.max_epochs", "1", "--name", "p"]
    assert main(["fit", "--model.network", "LeNet", *words]) == 0
    best = "checkpoints/p/version_0/best.ckpt"
    capsys.readouterr()
    for root in ("photos", "moved"):
        assert main(["test", "--ckpt_path", best, "--data.root", root]) == 0
        assert "training examples" not in printed(capsys)
    assert main(["test", "--ckpt_path", best, "--data.root", "copy"]) == 0
    (told,) = re.findall(r"Note: (\d+) of these (\d+) are training examples", printed(capsys))
    # By the files: what the seed takes for the test set of the copy, and what was trained on.
    trained, tested = ImageFolder("photos"), ImageFolder("copy")
    tested.prepare_like(torch.load(best, weights_only=True)["bnn_lightning"]["data"])
    trained.image_size = 32
    trained.setup("fit")
    tested.setup("test")
    both = sum(any(image.equal(other) for other in trained.train.pixels) for image in tested.test.pixels)
    assert tuple(map(int, told)) == (both, len(tested.test))
    assert both > 0


@pytest.mark.slow
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
    assert "--data.seed must be the checkpoint's, 0, got 5; on another split the test set has tra" in printed(capsys)
    # A set with test images of its own has them whatever the seed.
    assert main(["test", "--ckpt_path", str(run / "last.ckpt"), "--data.seed", "5"]) == 0


def test_test_reports_the_sparsity_of_each_layer(sparse, capsys):
    assert main(["test", "--ckpt_path", str(sparse)]) == 0
    out = printed(capsys)
    assert "Kept are the weights with log alpha below 3:" in out
    assert re.search(r"\nfc1 +235,200 ", out)
    assert re.search(r"compression \d+\.\dx \(weights over kept weights\), \d+\.\dx with biases", out)
    logs = Path("lightning_logs/sparse/version_0")
    results = json.loads((logs / "test_mnist5k_last.json").read_text())
    assert list(results["predictions"]) == ["samples", "one_sample", "mean_weights", "kept_weights"]
    assert results["sparsity"]["kept"] == sum(layer["kept"] for layer in results["sparsity"]["layers"])
    assert results["sparsity"]["compression"] == pytest.approx(266_200 / results["sparsity"]["kept"])
    rows = table(logs / "sparsity_last.csv")
    assert [row["layer"] for row in rows] == ["fc1", "fc2", "fc3", "all"]
    assert int(rows[3]["kept"]) == results["sparsity"]["kept"]
    assert Image.open(logs / "kept_weights_last.png").size[0] > 400
    tags = EventAccumulator(str(logs)).Reload().Tags()["scalars"]
    assert "train/sparsity" in tags


@pytest.mark.slow
def test_test_tells_images_from_elsewhere_and_measures_corruptions(run, capsys):
    words = ["--data.ood+=RenderedLetters", "--data.corruptions", "true", "--model.sampling.test_samples", "3"]
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), *words]) == 0
    out = printed(capsys)
    for title in ("AURC", "ECE at temperature", "risk at 95 % coverage", "± images", "± draws"):
        assert title in out
    assert "Told from RenderedLetters:" in out
    assert "letters rendered from fonts, not notMNIST" in out
    assert re.search(r"\nocclusion +nll +\d", out)
    logs = Path("lightning_logs/lenet_lrt_mnist5k/version_0")
    results = json.loads((logs / "test_mnist5k_best.json").read_text())
    scores = {"entropy", "tempered_entropy", "mutual_information", "one_minus_max_p", "epistemic"}
    assert set(results["ood"]["RenderedLetters"]) == scores
    assert results["corruptions"]["noise"].keys() == {"1", "2", "3", "4", "5"}
    ood = table(logs / "test_mnist5k_best_ood.csv")
    assert float(ood[0]["auroc"]) == results["ood"]["RenderedLetters"]["entropy"]["auroc"]["value"]
    assert len(table(logs / "test_mnist5k_best_corruptions.csv")) == 26
    row = table(logs / "test_mnist5k_best.csv")[0]
    assert float(row["nll_draw_error"]) == results["errors"]["samples"]["nll"]["draws"]
    assert float(row["nll_scaled"]) == results["predictions"]["samples"]["nll_scaled"]
    figures = ("reliability", "risk_coverage", "extremes", "turning", "ood", "uncertainty")
    for name in figures:
        with Image.open(logs / f"test_mnist5k_best_{name}.png") as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("L").getcolors(256)) > 20  # something is drawn
    events = EventAccumulator(str(logs)).Reload().Tags()
    assert {f"test_mnist5k_best_{name}" for name in figures} <= set(events["images"])
    wanted = {"test/aurc", "test/nll_scaled", "ood_RenderedLetters/entropy_auroc", "corruption_noise/nll_5"}
    assert wanted <= set(events["scalars"])


@pytest.mark.parametrize("draws", ["local", "mean", "moments"])
def test_samples_are_drawn_as_asked(run, draws, capsys):
    assert main(["test", "--ckpt_path", str(run / "best.ckpt"), "--model.sampling.draws", draws]) == 0
    text = printed(capsys)
    assert {"local": "25 local draws", "mean": "mean weights", "moments": "moments"}[draws] in text
    assert "not calibrated" not in text
    logs = Path("lightning_logs/lenet_lrt_mnist5k/version_0")
    results = json.loads((logs / f"test_mnist5k_best_{draws}.json").read_text())
    assert results["sampling"] == {"draws": draws, "samples": 128 if draws == "moments" else 25, "members": 1}
    ways = {"local": ["samples", "one_sample", "mean_weights"], "mean": ["samples"]}
    assert list(results["predictions"]) == ways.get(draws, ["samples", "mean_weights"])
    assert not (logs / "test_mnist5k_best.json").exists()
