"""What strangers may hand us: whatever the bytes are, a reader gives data or the documented error, and writes nothing.

A few hundred inputs each; ``pytest tests/test_fuzzing.py --hypothesis-profile=thorough`` tries over 10,000.
"""

import gzip
import io
import shutil
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bnn_lightning.checkpoints.record import FORMAT_VERSION, KEY, CheckpointError, read_checkpoint
from bnn_lightning.cli import main
from bnn_lightning.cli.command_line import CommandLine
from bnn_lightning.data import ImageFolder
from bnn_lightning.data.idx import read_idx, read_labelled
from bnn_lightning.data.notmnist import read_letters
from tests.helpers import ROOT

EACH = {"idx": 150, "tar": 60, "image": 100, "checkpoint": 30, "config": 12}  # inputs by default


def inputs(kind):
    """As many inputs as the profile asks for; readers touch files, which takes a time that means nothing."""
    share = settings().max_examples / settings.get_profile("default").max_examples
    return settings(
        max_examples=round(EACH[kind] * share),
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@st.composite
def damaged(draw, whole):
    """A file that is whole, cut, overwritten in places, or nothing of the kind."""
    content = bytearray(draw(whole))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4)):
        if content:
            content[place % len(content)] = byte
    content = bytes(content[: draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    return content + draw(st.one_of(st.just(b""), st.binary(max_size=20)))


def attempt(read, *arguments, error=ValueError):
    """What is read and "", or None and the words of the documented error."""
    try:
        return read(*arguments), ""
    except error as raised:
        return None, str(raised)


@pytest.fixture
def folder():
    """A folder in another; after the test, nothing stands beside it."""
    outside = Path(tempfile.mkdtemp())
    (outside / "root").mkdir()
    yield outside / "root"
    assert [path.name for path in outside.iterdir()] == ["root"]
    shutil.rmtree(outside)


@st.composite
def idx(draw):
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    kind = draw(st.sampled_from([8, 8, 8, 13]))
    content = draw(st.binary(min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    whole = bytes([0, 0, kind, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape) + content
    return gzip.compress(whole) if draw(st.booleans()) else whole


@inputs("idx")
@given(content=st.one_of(damaged(idx()), damaged(idx()), st.binary(max_size=60)), zipped=st.booleans())
def test_idx_files_of_any_bytes_are_read_or_refused_by_name(folder, content, zipped):
    path = folder / ("x.gz" if zipped else "x")
    path.write_bytes(content)
    for dimensions in (1, 3):
        tensor, reason = attempt(read_idx, path, dimensions)
        assert reason.startswith(str(path)) if reason else (tensor.dtype, tensor.dim()) == (torch.uint8, dimensions)
    images, reason = attempt(read_labelled, path, path, 28, 10)
    assert reason.startswith(str(path)) if reason else len(images.pixels) == len(images.labels)


def png(size=28):
    stream = io.BytesIO()
    Image.fromarray(np.arange(size * size, dtype=np.uint8).reshape(size, size)).save(stream, "PNG")
    return stream.getvalue()


@st.composite
def tar(draw):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for _ in range(draw(st.integers(0, 4))):
            name = draw(
                st.sampled_from(["A/x.png", "small/B/y.png", "../C/z.png", "/D/w.png", "E", "F/../../G/v.png", ""])
            )
            kinds = [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE]
            others = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, b"S", b"?"]
            member = tarfile.TarInfo(name)
            member.type = draw(st.sampled_from(kinds + others))
            member.linkname = draw(st.sampled_from(["", "/etc/passwd", "../../x"]))
            content = draw(damaged(st.just(png()))) if member.type == tarfile.REGTYPE else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    whole = stream.getvalue()
    if draw(st.booleans()):
        return whole
    return gzip.compress(draw(damaged(st.just(gzip.decompress(whole)))))  # past gzip's checksum


@inputs("tar")
@given(content=st.one_of(tar(), damaged(tar())))
def test_archives_of_any_bytes_are_read_or_refused_by_name(folder, content):
    path = folder / "notMNIST_small.tar.gz"
    path.write_bytes(content)
    letters, reason = attempt(read_letters, path)
    if reason:
        assert reason.startswith(str(path))
    else:
        images, unreadable = letters
        assert images.pixels.shape[1:] == (1, 28, 28)
        assert all(unreadable.values())
    assert list(folder.iterdir()) == [path]


FORMATS = {"png": "PNG", "jpg": "JPEG", "bmp": "BMP", "tif": "TIFF", "webp": "WEBP", "ppm": "PPM"}


@st.composite
def image(draw):
    ending = draw(st.sampled_from(sorted(FORMATS)))
    mode = draw(st.sampled_from({"jpg": ["L", "RGB", "CMYK"], "tif": ["L", "I;16", "F", "CMYK"]}.get(ending, ["RGB"])))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    picture = Image.new(mode, shape, 7 if mode in ("L", "I;16", "F") else tuple([7] * len(mode)))
    if ending == "png":
        picture = picture.convert(draw(st.sampled_from(["P", "1", "LA", "RGBA", "RGB"])))
    stream = io.BytesIO()
    frames = (
        {"save_all": True, "append_images": [picture] * 2} if draw(st.booleans()) and ending in ("webp", "tif") else {}
    )
    picture.save(stream, FORMATS[ending], **frames)
    return ending, stream.getvalue()


@inputs("image")
@given(data=st.data(), made=image(), other=st.sampled_from([None, *sorted(FORMATS)]))
def test_pictures_of_any_bytes_are_read_or_left_out_with_a_reason(folder, data, made, other):
    ending, whole = made
    path = folder / f"x.{other or ending}"
    path.write_bytes(data.draw(damaged(st.just(whole))))
    source = ImageFolder(str(folder), image_size=8, channels=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert source.native_channels in (1, 3)
        source.predict = source.load_predict()
    assert (len(source.predict_names()), list(source.unreadable)) in ((1, []), (0, [path]))
    assert all(source.unreadable.values())
    path.unlink()
    assert list(folder.iterdir()) == []


def whole_checkpoint():
    stream = io.BytesIO()
    torch.save({KEY: {"format_version": 1, "config": None}, "state_dict": {"a": torch.ones(3)}}, stream)
    return stream.getvalue()


@inputs("checkpoint")
@given(content=st.one_of(damaged(st.just(whole_checkpoint())), st.binary(max_size=100)))
def test_checkpoints_of_any_bytes_are_read_or_refused_by_name(folder, content):
    path = folder / "x.ckpt"
    path.write_bytes(content)
    checkpoint, reason = attempt(read_checkpoint, path, error=CheckpointError)
    assert reason.startswith(str(path)) if reason else checkpoint[KEY]["format_version"] == FORMAT_VERSION


# Values that fit somewhere, values that fit nowhere, and names of all kinds of things.
NAMES = ["LRT", "LeNet", "MNIST5k", "os.system", "torch.nn.ReLU", "no.such.Thing", "-1", "1e-3", "~", "[1"]
KEYS = ["class_path", "init_args", "prior_sigma", "x"]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(NAMES),
    st.lists(st.integers(-2, 5), max_size=3),
    st.dictionaries(st.sampled_from(KEYS), st.one_of(st.text(max_size=5), st.sampled_from(NAMES)), max_size=2),
)
CONFIG = yaml.safe_load((ROOT / "configs" / "lenet_lrt.yaml").read_text()) | {"data": "MNIST5k"}
OF_MODEL = ["inference", "likelihood", "sampling", "method", "network", "only", "init_from", "odd"]
OF_MODEL += ["lr", "kl_weight", "lr_schedule", "train_samples", "draws"]  # names of an earlier release
OF_TRAINER = ["max_epochs", "precision", "accelerator", "devices", "callbacks", "odd"]
PLACES = [("model", name) for name in OF_MODEL] + [("trainer", name) for name in OF_TRAINER]
PLACES += [(name,) for name in ("data", "seed_everything", "name", "save_every_n_steps", "odd", "model", "trainer")]


@st.composite
def config(draw):
    tree = yaml.safe_load(yaml.safe_dump(CONFIG))
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=2)):
        place = tree
        for name in path[:-1]:
            place = place[name] if isinstance(place.get(name), dict) else place.setdefault(f"{name}_", {})
        place[path[-1]] = draw(VALUES)
    text = yaml.safe_dump(tree, allow_unicode=True).encode()
    return draw(damaged(st.just(text))) if draw(st.integers(0, 3)) == 0 else text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # main() sets filters of its own, which pytest's would undo
@inputs("config")
@given(content=config())
def test_configs_of_any_values_are_parsed_or_refused_in_a_sentence(folder, content, monkeypatch, capsys):
    # Everything up to the verb itself; what makes sense would train.
    monkeypatch.setattr(CommandLine, "run", lambda self: None)
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    monkeypatch.chdir(work)
    (folder / "config.yaml").write_bytes(content)
    code = main(["fit", "--config", str(folder / "config.yaml"), "--data.train_subset", "20"])
    _, err = capsys.readouterr()
    assert code in (0, 2)
    if code == 2:
        lines = [line for line in err.splitlines() if not line.endswith(" now.")]  # on names of earlier releases
        assert len(lines) == 1, err
        assert lines[0].startswith("bnn: error: "), err
        assert lines[0].endswith("."), err
        assert "<class" not in err, err
    assert {path.name for path in work.iterdir()} <= {"lightning_logs"}
