"""A Predictor of an export says what the Predictor of its checkpoint says; other files are refused, and run nothing."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from bnn_lightning import ClassPredictions, Onnx, Predictor, Pt2, ResNet20, export_graph
from bnn_lightning.checkpoints.parts import Trained
from bnn_lightning.checkpoints.record import CheckpointError, Record
from bnn_lightning.compression.shrink import shrink
from bnn_lightning.deployment.archive import Archive
from bnn_lightning.deployment.interpreter import Program
from tests.compression.helpers import thinned
from tests.deployment.conftest import LENET_CKPT
from tests.deployment.test_pt2 import part, pickled, rewritten
from tests.helpers import Bomb

CLOSE = {"rtol": 1e-5, "atol": 5e-6}  # see test_graph.py


def exported(checkpoint, what, folder, file_format=Onnx()):  # noqa: B008
    record, path = Record.read(checkpoint), folder / f"net{file_format.ending}"
    export_graph(record, Trained.of(record), what, path, file_format)
    return path


def compare(found, expected):
    assert type(found) is type(expected)
    for name, values in vars(expected).items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            np.testing.assert_allclose(getattr(found, name), values, **CLOSE, err_msg=name)
        else:
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)


def digits(count=7):
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def compare_with_the_checkpoint(path, draws):
    """Of the committed LeNet: typed predictions, the same as by ``draws`` of the checkpoint."""
    settings = {"target_risk": 0.02, "alpha": 0.1}
    predictor, expected = Predictor.load(path, **settings), Predictor.load(LENET_CKPT, draws=draws, **settings)
    assert (predictor.draws, predictor.rule, predictor.class_names) == (draws, expected.rule, expected.class_names)
    found = predictor(digits())
    assert isinstance(found, ClassPredictions)
    compare(found, expected(digits()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("what", ["mean", "moments"])
def test_a_predictor_of_an_onnx_file_says_what_that_of_the_checkpoint_says(tmp_path, what):
    compare_with_the_checkpoint(exported(LENET_CKPT, what, tmp_path), what)


@pytest.fixture(scope="module")
def pt2_file(tmp_path_factory):
    """Of the committed LeNet's moments, whose outputs are correlated."""
    return exported(LENET_CKPT, "moments", tmp_path_factory.mktemp("export"), Pt2())


def test_a_predictor_of_a_pt2_file_says_what_that_of_the_checkpoint_says(pt2_file):
    found = compare_with_the_checkpoint(pt2_file, "moments")
    assert len(found.to_pandas()) == len(found)


def test_threads_share_a_pt2_file(pt2_file):
    predictor, x = Predictor.load(pt2_file), digits(40)
    expected = [predictor(x[start : start + 5]) for start in range(0, 40, 5)]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda start: predictor(x[start : start + 5]), range(0, 40, 5))
        for found, one in zip(answers, expected, strict=True):
            np.testing.assert_array_equal(found.probabilities, one.probabilities)


@pytest.mark.slow
def test_so_does_that_of_a_calibrated_pt2_file(tmp_path):
    assert compare_with_the_checkpoint(exported(LENET_CKPT, "mean", tmp_path, Pt2()), "mean").accepted is not None


@pytest.mark.slow
@pytest.mark.parametrize("file_format", [Onnx(), Pt2()])
def test_so_does_that_of_a_table(tmp_path, networks, file_format):
    (checkpoint,) = networks.glob("table/*/best.ckpt")
    rows = [{"colour": "red", "age": 3, "size": 4}, {"colour": "blue", "age": 12, "size": 20}]
    predictor = Predictor.load(exported(checkpoint, "moments", tmp_path, file_format))
    compare(predictor(rows), Predictor.load(checkpoint, draws="moments")(rows))


PARTS = {
    "a smaller residual network": (lambda: shrink(thinned(ResNet20(in_channels=1), 0.05)).float(), (1, 16, 16)),
    "group norm, group convolutions, GELU": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, padding="same"), nn.GroupNorm(2, 8), nn.GELU(), nn.Conv2d(8, 8, 3, groups=2), nn.SiLU(),
            nn.AvgPool2d(2), nn.ConvTranspose2d(8, 4, 2), nn.Softplus(), nn.Flatten(), nn.LazyLinear(3),
        ),
        (1, 12, 12),
    ),
    "one dimension": (
        lambda: nn.Sequential(
            nn.Flatten(2), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.LeakyReLU(), nn.MaxPool1d(2), nn.Flatten(),
            nn.LazyLinear(8), nn.LayerNorm(8), nn.ELU(), nn.Linear(8, 3), nn.LogSoftmax(1),
        ),
        (1, 8, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_the_graph_of_a_file_gives_what_the_network_gives(tmp_path, name):
    make, shape = PARTS[name]
    net = make().eval()
    x = torch.randn(5, *shape)
    with torch.no_grad():
        expected = net(x)
    Pt2().write(net, tmp_path / "net.pt2", x[:2], {})
    with Archive(tmp_path / "net.pt2") as archive:
        program = Program(archive)
    for count in (1, 5):
        (found,) = program(x[:count])
        # The same operators on other batches, in another memory format.
        torch.testing.assert_close(found, expected[:count], rtol=1e-4, atol=1e-5)


def test_a_pt2_file_of_a_stranger_runs_no_code(pt2_file, tmp_path, capsys):
    path = tmp_path / "net.pt2"
    path.write_bytes(pt2_file.read_bytes())
    expected = Predictor.load(path)(digits()).probabilities
    rewritten(path, part("sample_inputs/model.pt", lambda _: pickled(((Bomb(),), {}))))
    rewritten(path, part("model.json", lambda content: content.replace(b"[1, {", b"__import__('os').abort()")))
    np.testing.assert_array_equal(Predictor.load(path)(digits()).probabilities, expected)
    for old, new, why in (
        (b"torch.ops.aten.exp.default", b"torch.ops.aten.from_file.default", "torch.ops.aten.from_file.default"),
        (b"torch.ops.aten.exp.default", b"torch.ops.bnn.exp.default", "torch.ops.bnn.exp.default"),
        (b"torch.ops.aten.exp.default", b"torch.ops.aten.exp.__setattr__", "torch.ops.aten.exp.__setattr__"),
        (b"torch.ops.aten.exp.default", b"os.system", "os.system"),
    ):
        changed = tmp_path / "changed.pt2"
        changed.write_bytes(pt2_file.read_bytes())
        rewritten(changed, part("models/model.json", lambda content, old=old, new=new: content.replace(old, new)))
        with pytest.raises(CheckpointError, match=rf"^.*changed\.pt2 needs {why}, which no Predictor computes"):
            Predictor.load(changed)
    config = part(
        "constants_config.json", lambda content: content.replace(b'"use_pickle": false', b'"use_pickle": true')
    )
    rewritten(path, config)
    with pytest.raises(CheckpointError, match=r"^.*cannot be read as an exported graph \(tensor_0 is a pickle\)\.$"):
        Predictor.load(path)
    assert "this must not run" not in capsys.readouterr().out


def test_files_that_are_none_are_refused(tmp_path):
    file = tmp_path / "net.onnx"
    with pytest.raises(CheckpointError, match=r"^there is no file .*net\.onnx\.$"):
        Predictor.load(file)
    file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"^.*net\.onnx cannot be read as an ONNX file \(.*\)\.$"):
        Predictor.load(file)
    Onnx().write(torch.nn.Linear(3, 2), file, torch.zeros(2, 3), {})
    with pytest.raises(CheckpointError, match=r"^.*net\.onnx holds no graph that bnn export --what of this release"):
        Predictor.load(file)
    with pytest.raises(
        ValueError, match=r"^samples must be None for .*net\.onnx, whose samples are in the file, got 3"
    ):
        Predictor.load(file, samples=3)
    with pytest.raises(ValueError, match=r"^device must be cpu for .*net\.onnx, got cuda\.$"):
        Predictor.load(file, device="cuda")
    file = tmp_path / "net.pt2"
    file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"^.*net\.pt2 cannot be read as an exported graph \(.*\)\.$"):
        Predictor.load(file)
    Pt2().write(torch.nn.Linear(3, 2), file, torch.zeros(2, 3), {})
    with pytest.raises(CheckpointError, match=r"^.*net\.pt2 holds no graph that bnn export --what of this release"):
        Predictor.load(file)
