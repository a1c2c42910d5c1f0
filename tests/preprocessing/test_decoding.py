"""Pixels of a picture file, whatever its levels, transparency, orientation, shape and format."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from bnn_lightning.preprocessing.decoding import Decoder, _pillow_is_quiet, is_grey, open_picture


def decoded(path, channels=1, size=4, **settings):
    return Decoder(channels, size, **settings)(path)


def saved(path, picture, **settings):
    picture.save(path, **settings)
    return path


@pytest.mark.parametrize(("background", "seen"), [("white", 255), ("black", 0)])
def test_transparency_shows_the_background(tmp_path, background, seen):
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2] = 90, 90, 90, 255
    pixels[0, 3] = 0, 0, 0, 128  # half transparent: 128 of 255 parts black
    rgba = Image.fromarray(pixels)
    for name, mode in (("rgba.png", "RGBA"), ("la.png", "LA"), ("rgba.webp", "RGBA"), ("rgba.tif", "RGBA")):
        settings = {"lossless": True, "exact": True} if name.endswith("webp") else {}
        grey = decoded(saved(tmp_path / name, rgba.convert(mode), **settings), background=background).pixels[0]
        assert (grey[:, :2] == 90).all(), name
        assert (grey[1:, 2:] == seen).all(), name
        assert grey[0, 3] == pytest.approx(seen * 127 / 255, abs=1), name


def test_one_colour_may_be_transparent(tmp_path):
    palette = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8)).convert("P")
    palette.putpalette([10, 10, 10, 20, 20, 20, 30, 30, 30])
    files = [saved(tmp_path / f"p.{ending}", palette, transparency=1) for ending in ("png", "gif")]
    grey = Image.fromarray(np.array([[10, 20], [20, 30]], np.uint8))
    files.append(saved(tmp_path / "grey.png", grey, transparency=20))
    files.append(saved(tmp_path / "rgb.png", grey.convert("RGB"), transparency=(20, 20, 20)))
    for file in files:
        assert decoded(file, size=2).pixels.tolist() == [[[10, 255], [255, 30]]], file.name
    sixteen = Image.fromarray(np.array([[0, 257], [257, 65535]], np.uint16))
    assert decoded(saved(tmp_path / "sixteen.png", sixteen, transparency=257), size=2).pixels.tolist() == [
        [[0, 255], [255, 255]]
    ]


@pytest.mark.parametrize(("bits", "top"), [(8, 255), (10, 1023), (12, 4095), (14, 16383), (16, 65535)])
def test_levels_of_more_than_8_bits_are_scaled_by_the_bits_that_they_use(tmp_path, bits, top):
    levels = np.array([[0, top // 3], [top // 2 + 1, top - 1]], np.uint16)
    expected = levels.astype(np.int64) * 255 // top
    for ending in ("png", "tif"):
        read = decoded(saved(tmp_path / f"x.{ending}", Image.fromarray(levels)), size=2)
        assert read.range == (0, top)
        np.testing.assert_array_equal(read.pixels[0], expected)
    integers = saved(tmp_path / "i.tif", Image.fromarray(levels.astype(np.int32)))
    np.testing.assert_array_equal(decoded(integers, size=2).pixels[0], expected)


def test_a_pgm_file_says_its_own_range(tmp_path):
    # Its levels are dark, and its header says that they are of 12 bits.
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 4095\n" + np.array([0, 410], ">u2").tobytes())
    read = decoded(tmp_path / "x.pgm", size=2, fit="stretch")
    assert read.pixels[0, 0].tolist() == [0, 410 * 255 // 4095]


@pytest.mark.parametrize(
    ("levels", "used", "pixels"),
    [
        ([0.0, 0.25, 0.5, 1.0], (0, 1), [0, 63, 127, 255]),
        ([-2.0, 0.0, 1.0, 2.0], (-2, 2), [0, 127, 191, 255]),
        ([0.0, 1e6, 5e5, 0.0], (0, 1e6), [0, 255, 127, 0]),
        ([np.nan, np.inf, 0.5, -np.inf], (0, 1), [0, 255, 127, 0]),
        ([0.0, 0.0, 0.0, 0.0], (0, 1), [0, 0, 0, 0]),
    ],
)
def test_floats_are_scaled_by_their_own_range(tmp_path, levels, used, pixels):
    picture = Image.fromarray(np.array(levels, np.float32).reshape(2, 2))
    read = decoded(saved(tmp_path / "x.tif", picture), size=2)
    assert read.range == used
    assert read.pixels.flatten().tolist() == pixels


def test_a_picture_of_no_numbers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of its pixels is a finite number"):
        decoded(saved(tmp_path / "x.tif", Image.fromarray(np.full((2, 2), np.nan, np.float32))))


def test_the_first_frame_is_read_and_the_others_are_noted(tmp_path):
    frames = [Image.new("L", (4, 4), level) for level in (50, 100, 150)]
    for name in ("x.gif", "x.tif", "x.webp", "x.png"):
        path = saved(tmp_path / name, frames[0].convert("RGB"), save_all=True, append_images=frames[1:])
        read = decoded(path)
        assert read.has_frames, name
        assert read.pixels.mean() == pytest.approx(50, abs=2), name
    assert not decoded(saved(tmp_path / "one.gif", frames[0])).has_frames


def test_pictures_stand_upright(tmp_path):
    up = np.repeat(np.repeat(np.array([[0, 80], [160, 240]], np.uint8), 8, 0), 8, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows of the file are columns of the picture, from right to left
    for name in ("x.jpg", "x.png", "x.webp", "x.tif"):
        turned = Image.fromarray(np.rot90(up)).convert("RGB")
        read = decoded(saved(tmp_path / name, turned, exif=exif, quality=95), size=16).pixels[0]
        np.testing.assert_allclose(read[::8, ::8], up[::8, ::8], atol=6, err_msg=name)
    sixteen = Image.fromarray(np.rot90(up).astype(np.uint16) * 257)
    np.testing.assert_array_equal(decoded(saved(tmp_path / "16.png", sixteen, exif=exif), size=16).pixels[0], up)


def test_damaged_metadata_do_not_cost_the_picture(tmp_path):
    path = saved(tmp_path / "x.jpg", Image.new("L", (4, 4), 100), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decoded(path).pixels.mean() == pytest.approx(100, abs=2)


def test_a_picture_is_cropped_padded_or_stretched(tmp_path):
    wide = np.zeros((2, 6), np.uint8)
    wide[:, 2:4], wide[:, 4:] = 100, 200
    path = saved(tmp_path / "x.png", Image.fromarray(wide))
    assert (decoded(path, size=2).pixels == 100).all()
    padded = decoded(path, size=6, fit="pad").pixels[0]
    assert (padded[:2] == 255).all()
    assert (padded[4:] == 255).all()
    np.testing.assert_array_equal(padded[2:4], wide)
    assert (decoded(path, size=6, fit="pad", background="black").pixels[0, :2] == 0).all()
    stretched = decoded(path, size=6, fit="stretch").pixels[0]
    np.testing.assert_array_equal(stretched, wide[:1].repeat(6, 0))
    thin = saved(tmp_path / "thin.png", Image.new("L", (1000, 1), 7))
    for fit in ("crop", "pad", "stretch"):
        assert 7 in decoded(thin, size=8, fit=fit).pixels


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "I;16", "I;16B", "I", "F", "LA", "RGBA"]
)
def test_every_mode_becomes_grey_and_colour(tmp_path, mode):
    # Pillow 12.2 and older cannot read the YCbCr that they have written without compression.
    how = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
    path = saved(tmp_path / "x.tif", Image.new(mode, (4, 4)), **how)
    for channels in (1, 3):
        assert decoded(path, channels=channels).pixels.shape == (channels, 4, 4)


def test_a_palette_of_greys_is_grey():
    for colour, grey in (((7, 7, 7), True), ((7, 8, 7), False)):
        stream = io.BytesIO()
        picture = Image.new("P", (2, 2))
        picture.putpalette(colour)
        picture.save(stream, "PNG")
        with open_picture(stream) as opened:
            assert is_grey(opened) == grey


def test_threads_that_decode_leave_the_filters_of_warnings_as_they_were():
    before = list(warnings.filters)
    one, other = _pillow_is_quiet(), _pillow_is_quiet()
    with one:
        other.__enter__()
    warnings.warn("odd metadata", UserWarning, stacklevel=1)  # is silent: the other thread is still reading
    with pytest.raises(Image.DecompressionBombWarning):
        warnings.warn("many pixels", Image.DecompressionBombWarning, stacklevel=1)
    other.__exit__(None, None, None)
    assert warnings.filters == before
