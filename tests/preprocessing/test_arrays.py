"""What the axes and numbers of an array of images mean."""

import numpy as np
import pytest
import torch

from bnn_lightning.preprocessing.arrays import images_in

SHAPES = [  # shape, channels of the network, images that it holds, and the shape of each
    ((9, 8), 1, 1, (9, 8, 1)),
    ((9, 8, 3), 1, 1, (9, 8, 3)),
    ((9, 8, 4), 3, 1, (9, 8, 4)),
    ((9, 8, 1), 1, 1, (9, 8, 1)),
    ((1, 9, 8), 1, 1, (9, 8, 1)),
    ((7, 9, 8), 1, 7, (9, 8, 1)),
    ((3, 9, 8), 1, 3, (9, 8, 1)),
    ((5, 9, 8), 3, 5, (9, 8, 1)),
    ((7, 9, 8, 3), 1, 7, (9, 8, 3)),
    ((3, 9, 8, 3), 3, 3, (9, 8, 3)),
    ((7, 3, 9, 8), 3, 7, (9, 8, 3)),
    ((7, 1, 9, 8), 3, 7, (9, 8, 1)),
]


@pytest.mark.parametrize(("shape", "channels", "count", "each"), SHAPES, ids=str)
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_sizes_of_axes_say_what_they_are(shape, channels, count, each, kind):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    images = images_in(kind(array), None, channels, is_one=False)
    assert (len(images), images[0].shape) == (count, each)
    assert sorted(np.stack(images).ravel()) == sorted(array.ravel())


@pytest.mark.parametrize(
    ("shape", "channels", "choices"),
    [
        ((3, 9, 8), 3, "CHW .* or NHW"),
        ((4, 9, 8), 3, "CHW .* or NHW"),
        ((3, 9, 3), 1, "HWC, CHW or NHW"),
        ((7, 3, 9, 3), 3, "NHWC or NCHW"),
    ],
    ids=str,
)
def test_sizes_that_may_mean_two_things_are_refused_and_a_layout_says_which(shape, channels, choices):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    with pytest.raises(ValueError, match=rf"^layout must be {choices}.* for the shape .*, got none\.$"):
        images_in(array, None, channels, is_one=False)
    first, last = ("CHW", "HWC") if len(shape) == 3 else ("NCHW", "NHWC")
    np.testing.assert_array_equal(
        np.stack(images_in(array, first, channels, is_one=False))[0, ..., 0],
        array[0] if len(shape) == 3 else array[0, 0],
    )
    if shape[-1] == 3:
        np.testing.assert_array_equal(
            images_in(array, last, channels, is_one=False)[0], array if len(shape) == 3 else array[0]
        )


def test_a_layout_must_fit():
    with pytest.raises(ValueError, match=r"^layout must be one of HW, HWC, CHW, NHW, NHWC, NCHW, got 'NWH'\.$"):
        images_in(np.zeros((2, 2, 2), np.uint8), "NWH", 1, is_one=False)
    with pytest.raises(ValueError, match=r"^layout must have an axis for each of the shape \(2, 2, 2\), got HW\.$"):
        images_in(np.zeros((2, 2, 2), np.uint8), "HW", 1, is_one=False)
    with pytest.raises(ValueError, match=r"^images must have pixels, got the shape \(0, 9, 9\)\.$"):
        images_in(np.zeros((0, 9, 9), np.uint8), None, 1, is_one=False)
    # In a list, three axes are those of one image.
    assert images_in(np.zeros((3, 9, 8), np.uint8), None, 3, is_one=True)[0].shape == (9, 8, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_levels_that_they_come_from(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (image,) = images_in((levels / 255).astype(dtype), None, 1, is_one=False)
    # Halves have 11 bits: a level is off by at most 2^-11 of its 255 steps before it is rounded, which is 0.12.
    np.testing.assert_array_equal(image[..., 0], levels)
    assert images_in(torch.tensor(levels / 255).bfloat16(), None, 1, is_one=False)[0].dtype == np.uint8
