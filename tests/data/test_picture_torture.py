"""A folder of some 3,000 files of every format and oddity: each picture gets its row, and the numbers add up."""

import csv
import os
import warnings
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, features

from bnn_lightning.cli import main
from bnn_lightning.data import ImageFolder
from tests.helpers import printed

pytestmark = [pytest.mark.usefixtures("in_an_empty_folder"), pytest.mark.slow]

SAVED_AS = {
    **{"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "jif": "JPEG", "gif": "GIF"},
    **{"bmp": "BMP", "webp": "WEBP", "tif": "TIFF", "tiff": "TIFF", "ppm": "PPM", "pgm": "PPM", "pbm": "PPM"},
} | ({"avif": "AVIF"} if features.check("avif") else {})
MODES = {"JPEG": ["L", "RGB", "CMYK"], "PPM": ["1", "L", "RGB"], "BMP": ["1", "L", "P", "RGB"], "AVIF": ["RGB", "RGBA"]}
MODES |= {"PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"], "GIF": ["L", "P"], "WEBP": ["RGB", "RGBA"]}
MODES |= {"TIFF": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB"]}
NAMES = [
    "{}",
    "with space {}",
    "größe {}",
    "写真 {}",
    "🙂 {}",
    "emoji\u0301 {}",
    "-{}",
    "a.b.{}",
    "'{}\"",
    "line\n{}",
    "{},;",
]
NAMES += ["x" * 240 + "{}"]
SHAPES = [(8, 8), (1, 1), (1, 40), (40, 1), (7, 5)]
FOLDERS = [
    "",
    "cat",
    "dog/small",
    "train",
    "train/cat",
    "Testing/dog",
    "a/b/c/d/e/f",
    "folder.png",
    "空 folder",
    "f" * 255,
]
LEFTOVERS = [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git/objects"]


def made(root):
    """Writes the files; for each picture whether it can be read, and the numbers of what is to be passed over."""
    readable, passed = {}, Counter()

    def put(path, content, is_read):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        readable[path] = is_read

    number, whole = 0, {}
    while number < 2800:
        for ending, kind in SAVED_AS.items():
            for mode in MODES[kind]:
                picture = Image.new(mode, SHAPES[number % len(SHAPES)], 1)
                ending_so_written = [ending, ending.upper(), ending.title()][number % 3]
                name = NAMES[number % len(NAMES)].format(f"{number}") + f".{ending_so_written}"
                path = root / FOLDERS[number % len(FOLDERS)] / name
                path.parent.mkdir(parents=True, exist_ok=True)
                key = (kind, mode, picture.size)
                if key not in whole:
                    picture.save(path, kind)
                    whole[key] = path.read_bytes()
                put(path, whole[key], True)
                number += 1
    square = Image.new("RGB", (8, 8), (200, 100, 50))
    for index, (ending, kind) in enumerate(SAVED_AS.items()):
        file = root / f"whole.{ending}"
        square.save(file, kind)
        content = file.read_bytes()
        file.unlink()
        put(root / "wrong ending" / f"{index}.jpg", content, True)
        put(root / "cut" / f"{index}.{ending}", content[:12], False)
        put(root / "empty" / f"{index}.{ending}", b"", False)
        put(root / "text" / f"{index}.{ending}", b"no picture", False)
        for folder in LEFTOVERS:
            (root / "cat" / folder).mkdir(parents=True, exist_ok=True)
            (root / "cat" / folder / f"copy.{ending}").write_bytes(content)
        (root / "dog" / f"._{index}.{ending}").write_bytes(content)
        passed["hidden files"] += 1
    passed["hidden folders"] = len(LEFTOVERS)
    for index in range(30):  # several frames or pages
        for ending in ("gif", "tif", "webp", "png"):
            path = root / "frames" / f"{index}.{ending}"
            path.parent.mkdir(exist_ok=True)
            square.save(path, SAVED_AS[ending], save_all=True, append_images=[Image.new("RGB", (8, 8))])
            readable[path] = True
            passed["frames"] += 1
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = root / "turned" / f"{orientation}.jpg"
        path.parent.mkdir(exist_ok=True)
        square.save(path, exif=exif)
        readable[path] = True
    for ending in (".txt", ".heic", ".svg", ".CR2", ".json", "", ".zip", ".npy", ".mp4"):
        for index in range(10):
            (root / "cat" / f"note{index}{ending}").write_bytes(b"")
            passed["files"] += 1
    (root / "cat" / "loop").symlink_to("..")
    (root / "dog" / "far").symlink_to(root.resolve().parent)
    passed["loops"] = 2
    outside = root.parent / "outside"
    outside.mkdir()
    for name in ("linked", "linked again"):
        (root / name).symlink_to(outside.resolve())
        readable[root / name / "x.png"] = True
    square.save(outside / "x.png")
    (root / "link to a file.png").symlink_to(outside.resolve() / "x.png")
    readable[root / "link to a file.png"] = True
    for name, target in (("nowhere.png", "nothing"), ("itself.jpg", "itself.jpg")):
        (root / name).symlink_to(target)
        readable[root / name] = False
    if hasattr(os, "mkfifo"):
        os.mkfifo(root / "pipe.gif")  # whoever opens it waits for ever
        readable[root / "pipe.gif"] = False
    put(Path(os.fsdecode(os.fsencode(root) + b"/not utf-8 \xff.bmp")), next(iter(whole.values())), True)
    return readable, passed


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:  # names have line ends in them
        return list(csv.DictReader(file))


def name_in_table(path):
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@pytest.fixture
def torture():
    Path("photos").mkdir()
    return made(Path("photos"))


def test_every_picture_is_predicted_or_named_with_its_reason(torture):
    readable, passed = torture
    assert len(readable) > 2900
    data = ImageFolder("photos", image_size=8, channels=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.predict = data.load_predict()
    assert sorted(data.predict_names()) == sorted(name_in_table(path) for path in readable if readable[path])
    assert set(data.unreadable) == {path for path in readable if not readable[path]}
    assert all(data.unreadable.values())
    found = data.found
    assert found.pictures == len(readable)
    assert (found.hidden_files, found.hidden_folders) == (passed["hidden files"], passed["hidden folders"])
    assert sum(found.passed_over.values()) == passed["files"]
    assert len(found.loops) == passed["loops"]
    assert found.with_frames == passed["frames"]


@pytest.mark.filterwarnings("ignore")
def test_predict_writes_a_row_for_every_picture(torture, capsys):
    readable, _ = torture
    words = ["--model.network", "LeNet", "--data", "MNIST5k", "--data.train_subset", "100", "--name", "x"]
    assert main(["fit", *words, "--trainer.max_epochs", "1"]) == 0
    words = [
        "--ckpt_path",
        "checkpoints/x/version_0/last.ckpt",
        "--model.sampling.test_samples",
        "1",
        "--data",
        "ImageFolder",
        "--data.root",
        "photos",
    ]
    capsys.readouterr()
    assert main(["predict", *words]) == 0
    said = printed(capsys)
    assert f"photos: {len(readable):,} pictures\n  passed over: 90 files (" in said
    rows = rows_of(Path("lightning_logs/x/version_0/predictions.csv"))
    assert Counter(row["file"] for row in rows) == Counter(map(name_in_table, readable))
    errors = {row["file"] for row in rows if row["error"]}
    assert errors == {name_in_table(path) for path in readable if not readable[path]}
    assert f"{sum(readable.values()):,} predictions written" in said
