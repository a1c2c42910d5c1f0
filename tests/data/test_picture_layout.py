"""What a folder of pictures is taken for: links, leftovers, splits, classes, and the sentences about them."""

import os
import warnings
from pathlib import Path

import pytest
from PIL import Image

from bnn_lightning.data import DataNotFoundError, ImageFolder
from bnn_lightning.data.picture_layout import natural_order
from bnn_lightning.preprocessing.pictures import walk

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def pictures(*folders, count=5, ending="png"):
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(Path(folder, f"{number}.{ending}"))


def loaded(root, stage="fit", **settings):
    """The data, and what was said while they were loaded."""
    data = ImageFolder(root, image_size=8, **settings)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ".*too small to be in every part")  # for the hold-out, as all sets here are
        data.setup(stage)
    return data, [str(each.message) for each in said]


def refused(root, stage="fit", error=ValueError):
    data = ImageFolder(root, image_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error) as raised:
            data.setup(stage)
    return str(raised.value)


@pytest.mark.parametrize("train", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("val", ["val", "Valid", "validation", "DEV"])
@pytest.mark.parametrize("test", ["Test", "TESTING"])
def test_splits_go_by_their_usual_names_in_any_case(train, val, test):
    for folder, count in ((train, 6), (val, 4), (test, 2)):
        pictures(f"photos/{folder}/cat", f"photos/{folder}/dog", count=count)
    data, said = loaded("photos", None)
    assert said == []
    assert data.class_names == ("cat", "dog")
    assert [len(part) for part in (data.train, data.selection, data.calibration, data.test)] == [12, 4, 4, 4]
    assert str(data.found) == (
        "photos: 2 classes, 24 pictures: train 12 (cat 6, dog 6), val 8 (cat 4, dog 4), test 4 (cat 2, dog 2)"
    )


def test_two_folders_of_one_split_are_refused():
    pictures(*(f"photos/{split}/{name}" for split in ("train", "val", "valid") for name in ("cat", "dog")))
    assert refused("photos") == (
        "root must have one folder of val pictures, got val and valid in photos; merge them, or rename one."
    )


def test_leftovers_are_dropped_at_every_depth_whoever_asks():
    pictures("photos/cat", "photos/dog/puppies")
    for folder in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".hidden", "$RECYCLE.BIN"):
        pictures(f"photos/{folder}/cat", f"photos/cat/{folder}", f"photos/dog/puppies/{folder}", count=1)
    for file in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        Path("photos/cat", file).write_bytes(b"no picture")
    data, said = loaded("photos", None)
    assert said == []
    assert data.class_names == ("cat", "dog")
    assert data.num_train + sum(len(part) for part in (data.selection, data.calibration, data.test)) == 10
    assert len(data.load_predict()) == len(data.load_ood()) == 10
    assert (data.found.hidden_folders, data.found.hidden_files) == (15, 4)
    assert str(data.found).endswith("\n  passed over: 4 hidden files, 15 hidden folders")


def test_links_are_followed_but_not_in_circles():
    pictures("store/red", "store/green", "photos/blue")
    for name in ("red", "green"):
        Path("photos", name).symlink_to(Path("../store", name))
    Path("photos/blue/up").symlink_to("..")
    Path("photos/blue/far_up").symlink_to(Path.cwd().parent)
    Path("store/red/back").symlink_to(Path("photos").resolve())
    Path("store/green/red").symlink_to("../red")  # and red leads back: another circle
    Path("store/red/green").symlink_to("../green")
    Path("photos/blue/self.png").symlink_to("self.png")
    Path("photos/blue/nowhere.png").symlink_to("nowhere")
    walked = walk(Path("photos"))
    assert {picture.below[0] for picture in walked.pictures} == {"red", "green", "blue"}
    assert len({picture.real for picture in walked.pictures}) == 15
    assert Path("photos/blue/up") in walked.loops
    assert Path("photos/blue/far_up") in walked.loops
    assert set(walked.not_files) == {Path("photos/blue/self.png"), Path("photos/blue/nowhere.png")}


def test_folders_that_link_to_each_other_are_walked_in_no_time():
    names = [f"folder{number}" for number in range(12)]
    for name in names:
        pictures(f"store/{name}", count=1)
        for other in set(names) - {name}:
            Path("store", name, other).symlink_to(f"../{other}")
    Path("photos").mkdir()
    Path("photos/all").symlink_to("../store/folder0")
    walked = walk(Path("photos"))  # 12! paths
    assert sorted({Path(picture.real).parent.name for picture in walked.pictures}) == sorted(names)
    assert len(walked.pictures) <= 12**2


def test_a_picture_that_is_linked_twice_counts_once_for_its_class_and_by_each_name_for_predict():
    pictures("photos/cat", "photos/dog")
    Path("photos/cat/again").symlink_to("../cat2")
    pictures("photos/cat2")
    Path("photos/cat2/again.png").symlink_to("0.png")
    Path("photos/cat/0 again.png").symlink_to("0.png")
    data, said = loaded("photos")
    assert data.found.splits["train"] == {"cat": 10, "cat2": 5, "dog": 5}
    assert said == [
        f"files that links put into two classes or splits: 5, such as {Path('photos/cat2/0.png').resolve()}."
    ]
    assert (
        len(ImageFolder("photos", image_size=8, channels=3).load_predict()) == 5 + 1 + 6 + 6 + 5
    )  # cat, and by links; cat2; dog


def test_test_pictures_that_are_training_pictures_are_refused():
    pictures("photos/train/cat", "photos/train/dog")
    Path("photos/test").symlink_to("train")
    assert refused("photos", "test") == (
        "root must hold test pictures that are not training pictures, got links to the same files in photos/test."
    )


def test_what_cannot_be_opened_is_named(monkeypatch):
    pictures("photos/cat", "photos/dog", "photos/locked")
    scandir = os.scandir

    def guarded(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)  # the tests may run as root, whom no permission stops
    data, said = loaded("photos")
    assert data.class_names == ("cat", "dog")
    assert said == ["folders that cannot be opened: 1, such as photos/locked: Permission denied."]
    assert "1 closed folder" in str(data.found)


def test_numbered_classes_are_in_natural_order():
    for number in range(1, 12):
        pictures(f"photos/{number}", count=2)
    data, _ = loaded("photos", val_split=0)
    assert data.class_names == tuple(str(number) for number in range(1, 12))
    assert str(data.found).splitlines()[1].strip() == (
        'index and name of a class differ: index 0 is class "1", index 1 is class "2", index 2 is class "3" and 8 more'
    )
    names = ["class_10", "class_2", "b", "a10", "a9", "01", "1", "class_2b"]
    ordered = ["01", "1", "a9", "a10", "b", "class_2", "class_2b", "class_10"]
    assert sorted(names, key=natural_order) == ordered


def test_a_checkpoint_keeps_its_order_of_classes():
    # Earlier releases numbered them by text: 1, 10, 2.
    pictures("photos/1", "photos/2", "photos/10", count=5)
    earlier = ["1", "10", "2"]
    description = {"image_size": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "name": "y"}
    resumed, tested = ImageFolder("photos", image_size=8), ImageFolder("photos")
    resumed.number_classes_like(earlier)
    tested.prepare_like(description | {"class_names": earlier})
    tested.setup("test")
    assert resumed.class_names == tested.class_names == ("1", "10", "2")
    resumed.number_classes_like(["other", "classes"])
    assert resumed.class_names == ("1", "10", "2")


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (
            ["train/cat", "train/dog", "train/ant", "test/cat", "test/dog", "test/bee"],
            "photos/test has no pictures of ant.",
        ),
        (
            ["train/cat", "train/dog", "test/cat", "test/dog", "test/bee"],
            "photos/test has classes that training has not, and they are passed over: bee 5.",
        ),
        (
            ["train/cat", "train/dog", "fish"],
            "fish beside train in photos are in no split and are passed over; move them into photos/train.",
        ),
        (
            ["cat", "dog", "test/cat", "test/dog"],
            "cat, dog beside test in photos are taken for the training classes; a folder train around them would say "
            "so.",
        ),
        (
            ["cat", "dog", "test"],
            "pictures directly in photos/test, in no class folder, are passed over: 5, such as 0.png; bnn predict "
            "takes them.",
        ),
        (
            ["", "cat", "dog"],
            "pictures directly in photos, in no class folder, are passed over: 5, such as 0.png; bnn predict "
            "takes them.",
        ),
        (
            ["bus", "train", "car"],
            "photos/train is taken for a class, because there are no class folders in it.",
        ),
        (
            ["cats/train", "cats/test", "dogs/train", "dogs/test"],
            "the classes in photos hold folders called like splits, whose pictures are mixed; folders SPLIT/CLASS, not "
            "CLASS/SPLIT, would keep them apart.",
        ),
    ],
)
def test_what_may_not_be_meant_is_said(folders, sentence):
    pictures(*(f"photos/{folder}" for folder in folders))
    assert sentence in loaded("photos")[1]


def test_a_root_that_is_a_split_is_said():
    pictures(*(f"photos/{split}/{name}" for split in ("train", "Test") for name in ("cat", "dog")))
    assert loaded("photos/train")[1] == [
        "photos/train lies beside Test; --data.root photos would use each for its split."
    ]


@pytest.mark.parametrize(
    ("folders", "error", "sentence"),
    [
        (
            ["cat"],
            ValueError,
            "root must hold two or more classes to train on, got one, cat, in photos; each class needs a folder of its "
            "own.",
        ),
        (
            ["all/pets/cat", "all/pets/dog"],
            ValueError,
            "root must hold two or more classes to train on, got one folder in photos, and cat, dog in "
            "photos/all/pets; use --data.root photos/all/pets.",
        ),
        (
            ["all/train/cat", "all/train/dog"],
            ValueError,
            "root must hold two or more classes to train on, got one folder in photos, and train in photos/all; "
            "use --data.root photos/all.",
        ),
        (
            ["train/images/cat", "train/images/dog"],
            ValueError,
            "root must hold two or more classes to train on, got one folder in photos/train, and cat, dog in "
            "photos/train/images; move these up into photos/train.",
        ),
        (
            ["train", "test"],
            DataNotFoundError,
            "root must hold a folder for each class, got pictures directly in photos/train; move them into "
            "photos/train/CLASS.",
        ),
        (
            ["train/cat", "train/dog", "val/Cat", "val/Dog"],
            ValueError,
            "root must hold the same classes for val as for training, got Cat, Dog in photos/val, and cat, dog for "
            "training; rename the folders.",
        ),
    ],
)
def test_what_would_mean_nothing_is_refused_with_the_cure(folders, error, sentence):
    pictures(*(f"photos/{folder}" for folder in folders))
    assert refused("photos", error=error) == sentence


def test_a_root_that_is_a_class_is_refused_with_the_folder_above():
    pictures("photos/cat", "photos/dog")
    for stage in ("fit", "test"):
        assert refused("photos/cat", stage, DataNotFoundError).endswith("name the folder above: --data.root photos.")
    assert refused("photos/cat/0.png", "fit", DataNotFoundError) == (
        "root must be a folder with a folder for each class, got the file photos/cat/0.png."
    )


def test_a_root_that_is_not_there_is_named():
    assert refused("nowhere", "fit", DataNotFoundError) == (
        "root must be a folder of pictures, got nowhere, which is not there."
    )


def test_classes_without_a_readable_picture_are_said_or_refused():
    pictures("photos/cat", "photos/dog")
    for file in Path("photos/dog").iterdir():
        file.write_bytes(b"")
    assert refused("photos") == (
        "root must hold two or more classes to train on, got pictures that can be read of cat alone; nothing of dog "
        "can be read in photos."
    )
    pictures("photos/cow")
    data, said = loaded("photos")
    assert "no train picture of dog in photos can be read." in said
    assert data.train.labels.unique().tolist() == [0, 1]  # cat and cow


def test_formats_that_are_not_read_are_named():
    pictures("photos/cat", "photos/dog")
    for name, count in (("cow/{}.HEIC", 3), ("cat/{}.cr2", 1), ("cat/{}.txt", 2)):
        for number in range(count):
            path = Path("photos", name.format(number))
            path.parent.mkdir(exist_ok=True)
            path.touch()
    data, said = loaded("photos")
    assert said == [
        "no picture can be read in photos/cow, which is therefore no class.",
        "pictures in photos have formats that are not read (.heic 3, .cr2 1) and are left out; convert them to PNG or "
        "JPEG.",
    ]
    assert data.found.passed_over == {".heic": 3, ".cr2": 1, ".txt": 2}
    assert "passed over: 6 files (.heic 3, .txt 2, .cr2 1), 1 folder without pictures (photos/cow)" in str(data.found)


def test_why_there_are_too_few_classes_is_said_beside_the_error():
    pictures("photos/cat")
    Path("photos/cow").mkdir()
    Path("photos/cow/1.heic").touch()
    with (
        pytest.warns(UserWarning, match=r"^no picture can be read in photos/cow, which is therefore no class\.$"),
        pytest.warns(UserWarning, match=r"^pictures in photos have formats that are not read \(\.heic 1\)"),
        pytest.raises(ValueError, match=r"^root must hold two or more classes to train on, got one, cat, in photos"),
    ):
        ImageFolder(root="photos", image_size=8).setup("fit")


def test_16_bit_pictures_that_are_not_scaled_alike_are_said():
    pictures("photos/train/cat", "photos/train/dog")
    Image.new("I;16", (8, 8), 4000).save("photos/train/cat/12 bits.png")
    assert loaded("photos", val_split=0)[1] == []
    Image.new("I;16", (8, 8), 40000).save("photos/train/cat/16 bits.png")
    assert loaded("photos", val_split=0)[1] == [
        "pictures of more than 8 bits are scaled by the range that each uses, and these differ: 0 to 4095 in "
        "photos/train/cat/12 bits.png, 0 to 65535 in photos/train/cat/16 bits.png; save them with 8 bits where their "
        "brightness is to be compared."
    ]
