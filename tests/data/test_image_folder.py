"""A user's own pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_lightning.data import DataNotFoundError, ImageFolder


def picture(path, colour, size=(40, 50), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def folders(root, parts, per_class=10, mode="RGB"):
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            for index in range(per_class):
                colour = 100 * label + index if mode == "L" else (100 * label + index, 0, 0)
                picture(root / part / name / f"{index}.png", colour, mode=mode)


def test_every_class_of_an_image_folder_is_split_by_itself(tmp_path):
    folders(tmp_path, ["."])
    data = ImageFolder(str(tmp_path), image_size=16, val_split=0.25)
    data.setup()
    assert (data.class_names, data.num_classes, data.in_channels) == (("cat", "dog"), 2, 3)
    parts = (data.train, data.selection, data.calibration, data.test)
    assert [len(part) for part in parts] == [12, 2, 2, 4]
    assert data.test.labels.bincount().tolist() == [2, 2]
    reds = torch.cat([part.pixels[:, 0, 0, 0] for part in parts])
    assert sorted(reds.tolist()) == [*range(10), *range(100, 110)]  # every picture in exactly one part
    assert (data.test.pixels[:, 0, 0, 0].long() // 100 == data.test.labels).all()


def test_hidden_and_empty_folders_are_no_classes(tmp_path):
    folders(tmp_path, ["."], per_class=2)
    folders(tmp_path, [".checkpoints"], per_class=2)
    (tmp_path / "empty").mkdir()
    assert ImageFolder(str(tmp_path)).class_names == ("cat", "dog")


@pytest.mark.parametrize(("mode", "file"), [("I;16", "ramp.png"), ("I;16B", "ramp.tif")])
def test_sixteen_bit_pictures_keep_their_range(tmp_path, mode, file):
    ramp = np.repeat(np.linspace(0, 65535, 16).astype(np.uint16)[None], 16, 0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stored = ramp.astype("<u2" if mode == "I;16" else ">u2")
        Image.frombytes(mode, (16, 16), stored.tobytes()).save(tmp_path / name / file)
        with Image.open(tmp_path / name / file) as saved:
            assert saved.mode == mode
    data = ImageFolder(str(tmp_path), image_size=16, val_split=0)
    data.setup("fit")
    assert data.in_channels == 1
    np.testing.assert_array_equal(data.train.pixels[0, 0].numpy(), ramp // 257)


def test_image_folder_keeps_the_parts_that_it_finds_and_grey_stays_grey(tmp_path):
    folders(tmp_path, ["train", "val", "test"], per_class=4, mode="L")
    data = ImageFolder(str(tmp_path), image_size=16)
    data.setup()
    assert [len(part) for part in (data.train, data.selection, data.calibration, data.test)] == [8, 4, 4, 8]
    assert data.in_channels == 1


def test_image_folder_predicts_whatever_is_there(tmp_path):
    picture(tmp_path / "a.png", (9, 0, 0))
    picture(tmp_path / "more" / "b.jpg", (0, 9, 0))
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    description = {
        "image_size": 8,
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "class_names": ["x"],
        "name": "y",
    }
    data = ImageFolder(str(tmp_path))
    data.prepare_like(description, labelled=False)
    with pytest.warns(UserWarning, match=r"^pictures that cannot be read and are left out: 1, such as .*broken\.png"):
        data.setup("predict")
    assert data.predict_names() == [str(tmp_path / "a.png"), str(tmp_path / "more" / "b.jpg")]
    assert next(iter(data.predict_dataloader()))[0].shape == (2, 3, 8, 8)
    single = ImageFolder(str(tmp_path / "a.png"))
    single.prepare_like(description, labelled=False)
    single.setup("predict")
    assert single.predict_names() == [str(tmp_path / "a.png")]


def test_pictures_of_all_kinds_get_a_clear_row_or_are_read(tmp_path, monkeypatch):
    def saved(name, picture, **settings):
        picture.save(tmp_path / name, **settings)
        return (tmp_path / name).read_bytes()

    rgb = Image.new("RGB", (20, 20), (200, 100, 50))
    whole = saved("whole.png", rgb)
    saved("cmyk.jpg", rgb.convert("CMYK"))
    saved("palette.png", rgb.convert("P"))
    saved("transparent.png", rgb.convert("RGBA"))
    Image.fromarray(np.full((20, 20), 100 * 257, np.uint16)).save(tmp_path / "sixteen.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    saved("animated.webp", rgb, save_all=True, append_images=[Image.new("RGB", (20, 20), n) for n in (1, 9999999)])
    saved("pages.tif", rgb, save_all=True, append_images=[rgb])
    saved("phone.jpg", rgb, format="MPO", save_all=True, append_images=[rgb])
    saved("bomb.png", Image.new("1", (200, 200)))
    saved("program.png", rgb, format="EPS")  # which Pillow would have another program draw
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)  # Pillow's own limit is 89,478,485
    data = ImageFolder(str(tmp_path))
    description = {"image_size": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "class_names": [], "name": "y"}
    data.prepare_like(description, labelled=False)
    with pytest.warns(UserWarning, match=r"^pictures that cannot be read and are left out: 4, "):
        data.setup("predict")
    names = [Path(name).name for name in data.predict_names()]
    read = dict(zip(names, data.predict.pixels[:, :, 4, 4].tolist(), strict=True))
    # Of several frames or pages it is the first.
    usual = {"whole.png", "cmyk.jpg", "palette.png", "transparent.png", "sixteen.png", "phone.jpg"}
    assert read.keys() == usual | {"animated.webp", "pages.tif"}
    assert data.found.with_frames == 2  # a phone's previews are not counted
    assert read.pop("sixteen.png") == [100, 100, 100]
    for name, colour in read.items():
        assert colour == pytest.approx([200, 100, 50], abs=30), name  # a palette and JPEG change it a little
    reasons = {file.name: reason for file, reason in data.unreadable.items()}
    assert "could be decompression bomb" in reasons.pop("bomb.png")
    assert "cannot identify image file" in reasons.pop("empty.png")
    assert "truncated" in reasons.pop("cut.png")
    assert "cannot identify image file" in reasons.pop("program.png")
    assert reasons == {}


def test_image_folder_labels_follow_the_checkpoint(tmp_path):
    # A test folder that lacks a class must not shift the labels of the others.
    folders(tmp_path, ["test"])
    description = {"image_size": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "name": "pets", "notes": []}
    data = ImageFolder(str(tmp_path))
    data.prepare_like(description | {"class_names": ["ant", "cat", "dog"]})
    data.setup("test")
    assert data.test.labels.bincount(minlength=3).tolist() == [0, 10, 10]
    with pytest.raises(
        ValueError, match=r"^data must have the classes ant, bee, as the checkpoint's pets, got cat, dog"
    ):
        ImageFolder(str(tmp_path)).prepare_like(description | {"class_names": ["ant", "bee"]})


def test_image_folder_never_trains_on_test_pictures(tmp_path):
    folders(tmp_path, ["test"])
    data = ImageFolder(str(tmp_path), image_size=8)
    assert data.class_names == ("cat", "dog")
    sentence = r"^root must have a folder train with a folder for each class, got test alone in .*; make it, or name "
    with pytest.raises(DataNotFoundError, match=sentence):
        data.setup("fit")


def test_a_folder_of_splits_without_a_test_set_says_so(tmp_path):
    folders(tmp_path, ["train", "val"])
    sentence = r"^root must have a folder test with a folder for each class, got train, val alone in .*; make it, or "
    with pytest.raises(DataNotFoundError, match=sentence):
        ImageFolder(str(tmp_path), image_size=8).setup("test")


def test_an_image_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataNotFoundError, match="ImageFolder found no train pictures: looked for"):
        ImageFolder(str(tmp_path), image_size=8).setup("fit")
    folders(tmp_path, ["."], per_class=2)
    with pytest.raises(ValueError, match=r"^image_size must be given for ImageFolder"):
        ImageFolder(str(tmp_path)).setup("fit")


def pictures(folder, count=12):
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(place)
    (folder / "cat" / "broken.png").write_text("no picture")


@pytest.mark.filterwarnings("ignore:.*too small")
@pytest.mark.filterwarnings("ignore:pictures that cannot be read:UserWarning")
def test_a_cache_gives_the_same_batches_without_reading_pictures_again(tmp_path, monkeypatch):
    pictures(tmp_path / "pictures")

    def batches(**settings):
        data = ImageFolder(str(tmp_path / "pictures"), image_size=16, val_split=0.25, crop_padding=2, **settings)
        data.setup()
        loaders = (
            data.train_dataloader(),
            data.val_dataloader(),
            data.calibration_dataloader(),
            data.test_dataloader(),
        )
        return data, [batch for loader in loaders for batch in loader]

    _, expected = batches()
    cache = str(tmp_path / "cache")
    batches(cache=cache)
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: opened.append(args[0]) or original(*args, **kwargs))
    data, cached = batches(cache=cache)
    # The channels are found by looking at headers; no picture is decoded.
    assert len(opened) <= 12
    torch.testing.assert_close(cached, expected, rtol=0, atol=0)
    assert data.train.rows is not None
    assert [path.name for path in data.unreadable] == ["broken.png"]
    # A picture that has changed is read again, also where the file is as long as before.
    picture, sizes = tmp_path / "pictures" / "cat" / "0.png", []
    for grey in (7, 9):
        Image.new("RGB", (16, 16), (grey, grey, grey)).save(picture)
        sizes.append(picture.stat().st_size)
        data, _ = batches(cache=cache)
        everything = torch.cat([part.pixels for part in (data.train, data.selection, data.calibration, data.test)])
        assert (everything == grey).flatten(1).all(1).sum() == 1
    assert sizes[0] == sizes[1]


@pytest.mark.filterwarnings("ignore:.*too small")
def test_a_cache_is_of_its_settings(tmp_path):
    folders(tmp_path / "pictures", ["."], per_class=4)
    read = {}
    for settings in (("crop", "white"), ("pad", "white"), ("pad", "black"), ("crop", "white")):
        fit, background = settings
        data = ImageFolder(
            str(tmp_path / "pictures"), image_size=8, fit=fit, background=background, cache=str(tmp_path / "cache")
        )
        data.setup("fit")
        read[settings] = data.train.pixels
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3
    assert (read["pad", "white"][..., 0] == 255).all()  # the pictures are higher than they are wide
    assert (read["pad", "black"][..., 0] == 0).all()
    assert (read["crop", "white"][:, 1:] == 0).all()


@pytest.mark.filterwarnings("ignore:.*too small")
def test_root_and_cache_may_name_the_home_folder_and_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PHOTOS", "photos")
    monkeypatch.chdir(tmp_path)
    folders(tmp_path / "photos", ["."])
    data = ImageFolder("~/$PHOTOS", image_size=8, cache="~/${PHOTOS}_cache")
    data.setup("fit")
    assert data.num_train > 0
    assert len(list((tmp_path / "photos_cache").glob("*.npy"))) == 1
    monkeypatch.setenv("BNN_DATA", "~/photos")
    assert ImageFolder().root == tmp_path / "photos"
    assert not (tmp_path / "~").exists()


def test_settings_of_pictures_are_checked_and_taken_over_from_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"^fit must be one of crop, pad, stretch, got squeeze\.$"):
        ImageFolder("photos", fit="squeeze")
    with pytest.raises(ValueError, match=r"^background must be one of white, black, got red\.$"):
        ImageFolder("photos", background="red")
    folders(tmp_path, ["."], per_class=2)
    trained = ImageFolder(str(tmp_path), image_size=8, channels=3, fit="pad", background="black")
    other = ImageFolder("photos")
    other.prepare_like(trained.describe(), labelled=False)
    assert (other.fit, other.background) == ("pad", "black")
