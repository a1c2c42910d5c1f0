"""Residual networks and the vision transformer."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from bnn_lightning import BBB, LRT, ResNet18, ResNet20, ViTTiny, WideResNet, bayesianize, describe, kl, sample_logits
from bnn_lightning.networks.residual import FilterResponseNorm, ThresholdedReLU

# Parameters by hand: weights of convolutions and of the last layer with its biases, and 2 a channel of each norm layer.
RESNET20 = 27 * 16 + 6 * 9 * 16**2 + 9 * (16 * 32 + 5 * 32**2) + 16 * 32 + 9 * (32 * 64 + 5 * 64**2) + 32 * 64 + 650
RESNET20_NORMS = 2 * (7 * 16 + 7 * 32 + 7 * 64)
WRN_10_2 = 27 * 16 + 9 * (16 * 32 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 10 * 129
WRN_10_2_SHORTCUTS = 16 * 32 + 32 * 64 + 64 * 128
WRN_10_2_NORMS = 2 * (16 + 32 + 32 + 64 + 64 + 128 + 128)
VIT_BLOCK = 2 * 2 * 192 + 4 * 192**2 + 4 * 192 + 2 * 4 * 192**2 + 5 * 192


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (ResNet20(), RESNET20 + RESNET20_NORMS),
        (ResNet20(norm="group"), RESNET20 + RESNET20_NORMS),
        (ResNet20(norm="frn"), RESNET20 + RESNET20_NORMS + 7 * 16 + 6 * 32 + 6 * 64),
        (WideResNet(depth=10, width=2), WRN_10_2 + WRN_10_2_SHORTCUTS + WRN_10_2_NORMS),
        (ViTTiny(depth=2), (48 + 1) * 192 + 192 + 65 * 192 + 2 * VIT_BLOCK + 2 * 192 + 10 * 193),
    ],
    ids=["resnet20", "group", "frn", "wrn", "vit"],
)
def test_parameters_are_as_many_as_counted_by_hand(net, count):
    assert sum(value.numel() for value in net.parameters()) == count


def test_published_sizes():
    # He et al. 2016, table 6: 0.27 M; Zagoruyko & Komodakis 2016, table 4: WRN-28-10 has 36.5 M.
    assert round(sum(value.numel() for value in ResNet20().parameters()) / 1e6, 2) == 0.27
    with torch.device("meta"):
        assert round(sum(value.numel() for value in WideResNet().parameters()) / 1e6, 1) == 36.5


def test_resnet18_for_large_images_is_torchvisions():
    torch.manual_seed(0)
    theirs, ours = resnet18(num_classes=4).eval(), ResNet18(num_classes=4, image_size=224).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
    small = ResNet18(image_size=32)
    assert small.conv1.stride == (1, 1)
    assert small.layer1(small.relu(small.bn1(small.conv1(x[:, :, :32, :32])))).shape == (2, 64, 32, 32)


def test_filter_response_norm_and_its_activation_are_their_formulas():
    torch.manual_seed(0)
    norm, activation = FilterResponseNorm(3), ThresholdedReLU(3)
    with torch.no_grad():
        for parameter in (*norm.parameters(), *activation.parameters()):
            parameter.normal_()
    x = torch.randn(2, 3, 4, 5)
    y, z = norm(x), activation(norm(x))
    for image in range(2):
        for channel in range(3):
            values = x[image, channel]
            power = (values**2).sum() / 20
            expected = norm.weight[channel] * values / (power + 1e-6) ** 0.5 + norm.bias[channel]
            torch.testing.assert_close(y[image, channel], expected)
            torch.testing.assert_close(z[image, channel], expected.clamp_min(activation.tau[channel].item()))
    assert norm(1e4 * x.half()).isfinite().all()  # squares in half precision would not be
    rows = x[:, :, 0, 0]  # without height and width a channel's mean is over one value
    torch.testing.assert_close(norm(rows), norm.weight * rows / (rows**2 + 1e-6).sqrt() + norm.bias)


@pytest.mark.parametrize("norm", ["group", "frn"])
def test_without_batch_norm_an_image_does_not_depend_on_its_batch(norm):
    torch.manual_seed(0)
    net, x = ResNet20(norm=norm).double(), torch.randn(3, 3, 32, 32).double()
    torch.testing.assert_close(net(x)[:1], net(x[:1]))


@pytest.mark.filterwarnings("ignore:these weights are of no layer")  # positions and class token of the transformer
@pytest.mark.parametrize("make", [ResNet20, lambda: ViTTiny(depth=2), lambda: WideResNet(depth=10, width=1)])
def test_all_weights_but_positions_and_class_token_are_random(make):
    net = bayesianize(make(), LRT())
    made = describe(net)
    deterministic = {layer.kind for layer in made.layers if layer.method is None}
    assert deterministic <= {"BatchNorm2d", "LayerNorm", "PatchTokens"}
    samples = sample_logits(net, torch.randn(2, 3, 32, 32), 3)
    assert samples.isfinite().all()
    (net(torch.randn(2, 3, 32, 32)).sum() + kl(net)).backward()
    assert all(value.grad is not None for value in net.parameters())


def test_the_transformers_positions_are_named_as_deterministic():
    with pytest.warns(UserWarning, match=r"stay deterministic: tokens \(PatchTokens, 12,672\)\.$"):
        bayesianize(ViTTiny(depth=1), BBB())


def test_settings_that_make_no_network_are_refused():
    for make, message in (
        (lambda: WideResNet(depth=12), r"^depth must be 6 n \+ 4, such as 16, 22 or 28, got 12\.$"),
        (lambda: WideResNet(width=0), r"^width must be 1 or more, got 0\.$"),
        (lambda: ResNet20(norm="layer"), r"^norm must be batch, group or frn, got 'layer'\.$"),
        (lambda: ViTTiny(patch_size=5), r"^patch_size must divide the image_size of 32 pixels, got 5\.$"),
        (lambda: ViTTiny(patch_size=0), r"^patch_size must divide the image_size of 32 pixels, got 0\.$"),
        (lambda: ViTTiny(depth=0), r"^depth must be 1 or more blocks, got 0\.$"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize(("image_size", "patch"), [(32, 4), (28, 2), (100, 10), (30, 3), (7, 1)])
def test_patches_of_a_vit_are_about_an_eighth_and_divide_the_image(image_size, patch):
    assert ViTTiny(image_size=image_size, depth=1).tokens.project.kernel_size == (patch, patch)


def test_convolutions_begin_he_normal_by_their_outputs():
    weight = ResNet18().layer4[1].conv2.weight  # 512 x 512 x 3 x 3
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=5 / (2 * weight.numel()) ** 0.5)
    assert isinstance(ResNet18().fc, nn.Linear)
