"""Predictor: a checkpoint as a function of images and rows."""

import copy
import io
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_lightning import BayesianModule, Predictor, Sampler
from bnn_lightning.checkpoints.record import CheckpointError, Record
from bnn_lightning.cli import main
from bnn_lightning.data import MNIST5k
from tests.deployment.conftest import LENET_CKPT, ROWS
from tests.helpers import ROOT, table

# Rounding of sums that kernels make in another order, in float32: 8 digits of probabilities are compared to 5.
ROUNDING = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load(LENET_CKPT)


@pytest.fixture(scope="module")
def digits():
    """32 digits ``(32, 28, 28)``, uint8."""
    return MNIST5k().load_test().pixels[::31, 0][:32].numpy()


def test_a_program_that_predicts_loads_no_lightning():
    code = f"""
import sys
import numpy as np
from bnn_lightning import Predictor
predictor = Predictor.load({str(LENET_CKPT)!r})
predictor(np.zeros((28, 28), np.uint8))
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{HEAVY}}))
""".replace("HEAVY", "'lightning', 'torchmetrics', 'torchvision', 'matplotlib', 'rich', 'pandas', 'optuna'")
    run = [sys.executable, "-c", code]
    assert subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == "[]"


def test_what_it_says_is_what_the_sampler_and_the_calibration_say(predictor, digits):
    model = BayesianModule.from_checkpoint(LENET_CKPT)
    # By hand: LeNet's 32 pixels a side, and mean and std of the training images.
    data = Record.read(LENET_CKPT).data
    resized = [np.asarray(Image.fromarray(digit).resize((32, 32), Image.Resampling.BILINEAR)) for digit in digits]
    x = torch.from_numpy(np.stack(resized)).unsqueeze(1).double() / 255
    x = (x - data["mean"][0]) / data["std"][0]
    summary = model.likelihood.summary(Sampler(model.network, 25)(x.float()))
    predictions = predictor(digits)
    expected = summary["log_probs"].double().exp().numpy()
    np.testing.assert_allclose(predictions.probabilities, expected, **ROUNDING)
    np.testing.assert_array_equal(predictions.predicted, expected.argmax(-1))
    rule = model.calibration["weights"].accept_rule(0.01)
    np.testing.assert_array_equal(predictions.accepted, predictions.confidence >= rule.threshold)
    assert predictions.class_names == tuple("0123456789")
    for name in ("entropy", "mutual_information", "aleatoric", "epistemic"):
        np.testing.assert_allclose(getattr(predictions, name), summary[name].numpy(), rtol=0, atol=1e-4)


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_one_picture_is_one_picture_however_it_comes(predictor, digits, tmp_path):
    digit = digits[5]
    colour = np.stack([digit] * 3, -1)
    Image.fromarray(digit).save(tmp_path / "a.png")
    sixteen = Image.fromarray(digit.astype(np.uint16) * 257)
    turned = Image.fromarray(np.rot90(digit).copy())
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    clear = Image.fromarray(np.dstack([np.zeros((28, 28, 3), np.uint8), 255 - digit]), "RGBA")  # black ink on nothing
    ways = {
        "array": digit,
        "array of floats": digit / 255,
        "half floats": (digit / 255).astype(np.float16),
        "rows, columns, channels": digit[..., None],
        "colour": colour,
        "one of a batch": digit[None],
        "channels first": colour.transpose(2, 0, 1)[None],
        "tensor": torch.from_numpy(digit),
        "tensor of floats": torch.from_numpy(digit).float() / 255,
        "tensor with its gradient": (torch.from_numpy(digit).double() / 255).requires_grad_(),
        "PIL": Image.fromarray(digit),
        "palette": Image.fromarray(digit).convert("P"),
        "RGB": Image.fromarray(colour),
        "16 bits": sixteen,
        "transparent": clear,
        "path": tmp_path / "a.png",
        "name": str(tmp_path / "a.png"),
        "turned": tmp_path / "turned.png",
        "bytes": png(digit),
        "open file": io.BytesIO(png(digit)),
        "list": [digit],
    }
    expected = predictor(digit)
    for way, image in ways.items():
        predictions = predictor(image)
        assert len(predictions) == 1, way
        if way == "half floats":  # 11 bits hold 8, but for the rounding of their division
            assert predictions.predicted == expected.predicted
        else:
            np.testing.assert_array_equal(predictions.probabilities, expected.probabilities, err_msg=way)


def test_a_folder_is_taken_as_predict_takes_it(predictor, digits, tmp_path):
    for name, digit in zip(("b/2.png", "a/1.png", "c.png"), digits, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(digit).save(tmp_path / name)
    predictions = predictor(tmp_path)
    assert predictions.files.tolist() == [str(tmp_path / name) for name in ("a/1.png", "b/2.png", "c.png")]
    np.testing.assert_allclose(predictions.probabilities, predictor(digits[[1, 0, 2]]).probabilities, **ROUNDING)
    (tmp_path / "d.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"^images must be pictures that can be read, got .*d\.png: cannot identify"):
        predictor(tmp_path)
    mixed = predictor([tmp_path / "c.png", digits[0]])
    assert mixed.files.tolist() == [str(tmp_path / "c.png"), "image 2"]


@pytest.mark.parametrize("draws", ["weights", "mean"])
def test_an_image_has_its_prediction_alone_and_in_any_batch(draws, digits):
    predictor = Predictor.load(LENET_CKPT, draws=draws, batch_size=7)
    together = predictor(digits).probabilities
    for size in (1, 3, 16):
        parts = [predictor(digits[start : start + size]).probabilities for start in range(0, 32, size)]
        np.testing.assert_allclose(np.concatenate(parts), together, **ROUNDING)
    # The same batch gives the same bits, in this predictor and in another.
    np.testing.assert_array_equal(predictor(digits).probabilities, together)
    other = Predictor.load(LENET_CKPT, draws=draws, batch_size=7)
    np.testing.assert_array_equal(other(digits).probabilities, together)


def test_draws_that_are_too_large_to_keep_are_the_same_draws(predictor, digits):
    frugal = Predictor.load(LENET_CKPT, kept_bytes=1)
    np.testing.assert_array_equal(frugal(digits).probabilities, predictor(digits).probabilities)


@pytest.mark.parametrize("settings", [{}, {"kept_bytes": 1}, {"draws": "local"}, {"draws": "mean"}], ids=str)
def test_eight_threads_get_what_one_gets_and_the_generator_is_left_alone(settings, digits):
    state = torch.random.get_rng_state()
    predictor = Predictor.load(LENET_CKPT, samples=6, **settings)
    expected = [predictor(digits[index : index + 2]).probabilities for index in range(0, 32, 2)]
    results, start = {}, threading.Barrier(8)

    def work(thread):
        start.wait()
        for index in range(16):
            part = (index + 2 * thread) % 16
            results[thread, part] = predictor(digits[2 * part : 2 * part + 2]).probabilities

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 * 16
    for (_, part), probabilities in results.items():
        np.testing.assert_array_equal(probabilities, expected[part])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda predictor: pickle.loads(pickle.dumps(predictor))])
@pytest.mark.parametrize("draws", ["weights", "local", "mean"])
def test_it_can_be_pickled_and_copied(draws, copied, digits):
    predictor = Predictor.load(LENET_CKPT, samples=3, draws=draws)
    expected = predictor(digits[:4]).probabilities
    np.testing.assert_array_equal(copied(predictor)(digits[:4]).probabilities, expected)


def test_it_says_what_is_wrong_in_a_sentence(predictor, digits, tmp_path):
    float_digits = digits / 255
    for images, sentence in {
        "255": (255 * float_digits, r"^images must be .* got floats from 0 to 255; divide them by 255\.$"),
        "normalised": ((float_digits - 0.13) / 0.31, r"got floats from -0\.4194 to 2\.806; do not normalise them"),
        "nan": (np.full((28, 28), np.nan), r"got floats from nan to nan; nan is no pixel\.$"),
        "bool": (digits > 9, r"^images must be .* got bool; 255 \* images"),
        "int64": (digits.astype(int), r"got int64; images\.astype\('uint8'\) is right where"),
        "number": (3, r"^images must be a path, .* got int\.$"),
        "none": ([], r"^images must be one or more, got none\.$"),
        "no file": (tmp_path / "x.png", r"^images must be files that are there, got .*x\.png, which is not\.$"),
        "empty": (tmp_path, r"^images must be one or more, got none in "),
        "channels": (np.zeros((2, 9, 9, 5), np.uint8), r"^layout must be NHWC or NCHW .* without an axis of 1, 3 or 4"),
        "axes": (np.zeros((2, 3, 9, 9, 1), np.uint8), r"^images must have the axes HW, HWC"),
        "batch in a list": ([digits], r"^images must be single images in a list"),
    }.values():
        with pytest.raises(ValueError, match=sentence):
            predictor(images)
    for name, value in {"target_risk": 0, "alpha": 1.5, "samples": 0, "draws": "some", "batch_size": 0}.items():
        with pytest.raises(ValueError, match=rf"^{name} must be"):
            Predictor.load(LENET_CKPT, **{name: value})
    with pytest.raises(ValueError, match=r"^target_error must be above 0, in the units of labels that are numbers"):
        Predictor.load(LENET_CKPT, target_error=1.0)
    with pytest.raises(CheckpointError, match=r"^there is no best\.ckpt or last\.ckpt in "):
        Predictor.load(tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_predict_and_predictor_say_the_same(networks, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index, digit in enumerate(digits):
        (tmp_path / "new" / str(index % 10)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(digit).save(tmp_path / "new" / str(index % 10) / f"{index}.png")
    for name, settings in (("run0", []), ("dropout", []), ("run0", ["--model.sampling.draws", "local"])):
        best = networks / name / "version_0" / "best.ckpt"
        words = ["predict", "--ckpt_path", str(best), "--data", "ImageFolder", "--data.root", "new", *settings]
        assert main([*words, "--target_risk", "0.5", "--alpha", "0.2", "--output", "rows.csv"]) == 0
        rows = table(Path("rows.csv"))
        draws = settings[-1] if settings else None
        predictions = Predictor.load(best, draws=draws, target_risk=0.5, alpha=0.2)("new")
        assert len(rows) == len(predictions) == 32
        for row, mine in zip(rows, predictions.rows(), strict=True):
            assert row.pop("error") == ""
            assert row.pop("label") == row.pop("label_name") == Path(mine["file"]).parent.name
            assert row == {name: str(value) for name, value in mine.items()}


def test_a_runs_folder_and_several_checkpoints_are_one_predictor_each(networks, digits):
    paths = [networks / name / "version_0" for name in ("run0", "run1")]
    one, other = (Predictor.load(path, samples=4, draws="weights") for path in paths)
    both = Predictor.load(paths, samples=8, draws="weights")
    mean = (one(digits).probabilities + other(digits).probabilities) / 2
    # Draws of a member are seeded by its number: those of the first are the same.
    halves = both._sampler(torch.zeros(1, 1, 32, 32))
    assert halves.shape[0] == 8
    assert torch.equal(halves[:4], one._sampler(torch.zeros(1, 1, 32, 32)))
    assert np.abs(both(digits).probabilities - mean).max() < 0.2  # those of the second are others
    assert both(digits).accepted is None
    assert "holds no calibration" in both.rule
    with pytest.raises(CheckpointError, match="is there twice; an ensemble is of different networks"):
        Predictor.load([paths[0], paths[0]])
    with pytest.raises(CheckpointError, match=r"differs from .* in --.*; only the seed may\.$"):
        Predictor.load([paths[0], networks / "dropout" / "version_0"])


def test_rows_of_a_table_come_in_several_forms(networks, tmp_path, monkeypatch):
    predictor = Predictor.load(networks / "table" / "version_0" / "last.ckpt", target_risk=0.3, target_error=30.0)
    rows = [dict(zip(ROWS.split("\n")[0].split(","), row.split(","), strict=True)) for row in ROWS.split("\n")[1:9]]
    rows = [{"colour": row["colour"], "age": int(row["age"]), "size": int(row["size"])} for row in rows]
    expected = predictor(rows)
    assert expected.mean.shape == (8, 1)
    assert (expected.low < expected.mean).all()
    np.testing.assert_allclose(expected.std**2, expected.aleatoric_std**2 + expected.epistemic_std**2)
    array = np.array([list(row.values()) for row in rows], dtype=object)
    np.testing.assert_array_equal(predictor(array).mean, expected.mean)
    np.testing.assert_allclose(predictor(rows[3]).mean, expected.mean[3:4], rtol=1e-5)
    np.testing.assert_allclose(predictor(array[3]).mean, expected.mean[3:4], rtol=1e-5)
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(predictor(pandas.DataFrame(rows)).mean, expected.mean)
    monkeypatch.chdir(tmp_path)
    lines = ["colour,age,size", *(f"{row['colour']},{row['age']},{row['size']}" for row in rows)]
    Path("new.csv").write_text("\n".join(lines))
    words = ["--data.path", "new.csv", "--target_risk", "0.3", "--target_error", "30", "--output", "out.csv"]
    assert main(["predict", "--ckpt_path", str(networks / "table" / "version_0" / "last.ckpt"), *words]) == 0
    for row, mine in zip(table(Path("out.csv")), expected.rows(), strict=True):
        assert {name: row[name] for name in mine} == {name: str(value) for name, value in mine.items()}
    for wrong, sentence in {
        "column": ([{"colour": "red", "age": 1}], r"^rows must have the column size, got the list of rows without it"),
        "text": (
            [rows[0] | {"age": "old"}],
            r"^features must be a column of numbers, got age, where row 0 of the list",
        ),
        "level": (
            [rows[0] | {"colour": "green"}],
            r"^rows must be a table whose colour is one of blue, red, as in tra",
        ),
        "missing": (
            [rows[0] | {"age": None}],
            r"^rows must have a value in each column, because the network was trained with missing: refuse: age has no",
        ),
        "width": (np.zeros((2, 4)), r"^rows must have a column for each of colour, age, size, in this order"),
        "kind": (5, r"^rows must be a DataFrame, .* got int\.$"),
        "none": ([], r"^rows must be one or more, got none\.$"),
    }.values():
        with pytest.raises(ValueError, match=sentence):
            predictor(wrong)
    with pytest.raises(ValueError, match=r"^layout must be None for the rows of a table"):
        predictor(rows, layout="HW")


def test_a_users_network_is_found_where_code_says_and_nowhere_else(tmp_path, monkeypatch):
    code = tmp_path / "code"
    code.mkdir()
    (code / "owned_net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self, in_channels=1, num_classes=10):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(784, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["--model.network", "owned_net.Net", "--model.method", "LRT", "--name", "own", "--trainer.max_epochs", "1"]
    words += ["--data", "MNIST5k", "--data.train_subset", "300", "--code", "code"]
    assert main(["fit", *words]) == 0
    monkeypatch.delitem(sys.modules, "owned_net")
    best = tmp_path / "checkpoints" / "own" / "version_0" / "best.ckpt"
    sentence = (
        r"^code must be a folder with the module owned_net, .* it was in .*owned_net\.py when .* code='code' finds"
    )
    with pytest.raises(CheckpointError, match=sentence):
        Predictor.load(best)
    with pytest.raises(ValueError, match=r"^code must be a folder, got nowhere\.$"):
        Predictor.load(best, code="nowhere")
    path = list(sys.path)
    assert len(Predictor.load(best, code=code)(np.zeros((28, 28), np.uint8))) == 1
    assert sys.path == path

    (code / "owned_net.py").write_text((code / "owned_net.py").read_text().replace("784, num", "392, num"))
    monkeypatch.delitem(sys.modules, "owned_net")
    with pytest.raises(CheckpointError, match=r"does not fit the network that its config names, .*: size mismatch for"):
        Predictor.load(best, code=code)


def test_a_module_says_when_it_is_misused(digits):
    model = BayesianModule.from_checkpoint(LENET_CKPT)
    padded = torch.from_numpy(np.pad(digits, ((0, 0), (2, 2), (2, 2)))).unsqueeze(1)
    with pytest.raises(
        ValueError, match=r"^x must be normalised images in floats, got uint8; bnn_lightning\.Predictor"
    ):
        model(padded)
    for scale in (1, 255):
        with pytest.warns(
            UserWarning, match=r"are not normalised as the checkpoint has them.*bnn_lightning\.Predictor"
        ):
            model(padded / 255 * scale)
    data = Record.read(LENET_CKPT).data
    model((padded / 255 - data["mean"][0]) / data["std"][0])  # without a warning, which would be an error here
    with pytest.raises(RuntimeError, match=r"^predict_step must be called by a Trainer; bnn_lightning\.Predictor"):
        model.predict_step(padded / 255, 0)
