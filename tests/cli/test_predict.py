"""``bnn predict``: a row for each image, and what to do with it."""

from pathlib import Path

import pytest
from PIL import Image

from bnn_lightning.cli import main
from bnn_lightning.cli.words import gives_data
from tests.helpers import ON_THE_COMMAND_LINE, printed, table

pytestmark = ON_THE_COMMAND_LINE


def test_predict_writes_a_row_for_each_image(run, capsys):
    assert main(["predict", "--ckpt_path", str(run / "best.ckpt")]) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/predictions.csv"))
    assert len(rows) == 1000
    assert rows[7]["name"] == rows[7]["class"]
    assert 0 <= float(rows[0]["mutual_information"]) <= float(rows[0]["entropy"])


def test_predict_by_moments(run, capsys):
    words = ["--ckpt_path", str(run / "best.ckpt"), "--model.sampling.draws", "moments"]
    assert main(["predict", *words]) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/predictions.csv"))
    assert len(rows) == 1000
    assert 0 < float(rows[0]["mutual_information"]) <= float(rows[0]["entropy"])
    assert {row["decision"] for row in rows} <= {"accept", "abstain"}  # by a calibration of moments
    assert "with 25 samples" not in printed(capsys)


def test_predict_names_a_users_pictures_and_those_it_cannot_read(run, capsys):
    Path("photos").mkdir()
    Image.new("RGB", (40, 30), (200, 10, 10)).save("photos/a.png")
    Path("photos/b.png").write_bytes(b"nothing")
    best = str(run / "best.ckpt")
    assert main(["predict", "--ckpt_path", best, "--data", "ImageFolder", "--data.root", "photos"]) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/predictions.csv"))
    assert [row["file"] for row in rows] == ["photos/a.png", "photos/b.png"]
    assert rows[0]["error"] == ""
    assert "cannot identify image file" in rows[1]["error"]


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
    ],
)
def test_flags_and_configs_say_which_images_are_predicted(words, given):
    Path("trainer.yaml").write_text("trainer: {accelerator: cpu}")
    Path("data.yaml").write_text("data: MNIST")
    assert gives_data(words.split()) == given


def test_predict_can_stop_after_some_batches(run):
    words = ["--data.eval_batch_size", "50", "--trainer.limit_predict_batches", "2"]
    assert main(["predict", "--ckpt_path", str(run / "last.ckpt"), *words]) == 0
    assert len(table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/predictions.csv"))) == 100


def test_predict_says_what_to_do_with_each_picture(run, capsys):
    best = str(run / "best.ckpt")
    words = ["predict", "--ckpt_path", best, "--target_risk", "0.97", "--alpha", "0.2"]
    assert main(words) == 0
    assert "Accepted is what has a confidence of" in printed(capsys)
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/predictions.csv"))
    assert {row["decision"] for row in rows} == {"accept", "abstain"}
    assert any(" | " in row["set"] for row in rows)
    # The next prediction leaves this one as it is; a single file is enough.
    Image.new("L", (28, 28), 0).save("one picture.png")
    assert main([*words, "--data", "ImageFolder", "--data.root", "one picture.png"]) == 0
    assert table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/predictions.csv")) == rows
    assert [row["file"] for row in table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/predictions_1.csv"))] == [
        "one picture.png"
    ]


def test_a_picture_that_cannot_be_read_gets_its_row_even_alone(run):
    Path("broken.png").write_bytes(b"nothing")
    words = ["predict", "--ckpt_path", str(run / "best.ckpt"), "--data", "ImageFolder", "--data.root", "broken.png"]
    assert main(words) == 0
    rows = table(Path("lightning_logs/lenet_lrt_mnist5k/version_0/predictions.csv"))
    assert [row["file"] for row in rows] == ["broken.png"]
    assert "cannot identify image file" in rows[0]["error"]


def test_predictions_do_not_depend_on_the_batches(run):
    # An image is predicted alone: what else is in its batch must not matter.
    words = ["predict", "--ckpt_path", str(run / "best.ckpt")]
    assert main(words) == 0
    assert main([*words, "--data.eval_batch_size", "7"]) == 0
    logs = Path("lightning_logs/lenet_lrt_mnist5k/version_0")
    first, second = (table(logs / name) for name in ("predictions.csv", "predictions_1.csv"))
    for row, same_row in zip(first, second, strict=True):
        assert row["class"] == same_row["class"]
        for key in ("confidence", "entropy", "mutual_information", "aleatoric", "epistemic"):
            assert float(row[key]) == pytest.approx(float(same_row[key]), rel=1e-3, abs=1e-5)
