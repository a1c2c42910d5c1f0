"""Corruptions of the test images."""

import pytest
import torch

from bnn_lightning.data.corruptions import KINDS, SEVERITIES, corrupted


@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_are_always_the_same_and_grow_worse(digits, kind):
    pixels = digits.test.pixels[:200].clone()
    distances = []
    for severity in SEVERITIES:
        worse = corrupted(pixels, kind, severity)
        assert (worse.dtype, worse.shape) == (torch.uint8, pixels.shape)
        assert torch.equal(worse, corrupted(pixels, kind, severity))
        distances.append((worse.float() - pixels.float()).square().mean().item())
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert corrupted(torch.randint(0, 256, (3, 3, 20, 30), dtype=torch.uint8), kind, 5).shape == (3, 3, 20, 30)
    assert torch.equal(pixels, digits.test.pixels[:200])


def test_what_corruptions_do_to_a_known_image():
    bar = torch.zeros(2, 1, 33, 33, dtype=torch.uint8)
    bar[:, :, :, 16] = 255
    for image, direction in zip(corrupted(bar, "rotation", 2)[:, 0], (1, -1), strict=True):
        # 30 degrees: 8 pixels above the middle the bar is 8 tan(30) = 4.6 to the left, or to the right.
        assert image[8].float().argmax().item() == pytest.approx(16 - direction * 4.6, abs=1)
    noisy = corrupted(torch.full((50, 1, 32, 32), 128, dtype=torch.uint8), "noise", 2).double()
    assert noisy.std().item() == pytest.approx(51, abs=5 * 51 / (2 * noisy.numel()) ** 0.5 + 1)
    assert corrupted(bar, "contrast", 3)[0].double().std().item() == pytest.approx(
        0.3 * bar[0].double().std().item(), rel=0.02
    )
    assert (corrupted(torch.zeros(9, 1, 30, 30, dtype=torch.uint8), "occlusion", 4) == 128).sum((1, 2, 3)).tolist() == [
        225
    ] * 9
    with pytest.raises(ValueError, match=r"^corruption must be one of rotation, .* from 1 to 5, got 'snow' at 6\."):
        corrupted(bar, "snow", 6)
