"""ViTTiny, a vision transformer for small images."""

import torch
from torch import Tensor, nn

from bnn_lightning.networks.base import Network


class PatchTokens(nn.Module):
    """Images ``(batch, channels, side, side)`` as tokens ``(batch, 1 + patches, width)``.

    The first token is learnt, and gives the class; then comes one for each patch. Positions are learnt and added.
    Dosovitskiy et al. 2021 (arXiv:2010.11929), eq. 1.
    """

    def __init__(self, channels: int, image_size: int, patch: int, width: int):
        super().__init__()
        self.project = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + (image_size // patch) ** 2, width))
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.project(x).flatten(2).transpose(1, 2)
        # len(x) would be a number, by which torch.export fixes the size of the batch.
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1), patches], 1) + self.positions


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), for tokens ``(batch, tokens, width)`` (eq. 2 and 3)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


class ClassToken(nn.Module):
    """The first of the tokens ``(batch, tokens, width)``: ``(batch, width)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class ViTTiny(Network):
    """ViT-Tiny: 12 blocks of width 192 with 3 heads; 5,362,762 parameters for RGB images of 32x32 pixels.

    Dosovitskiy et al. 2021 (arXiv:2010.11929) at the width of Touvron et al. 2021 (arXiv:2012.12877), table 1.

    Args:
        in_channels: of the images.
        num_classes: number of outputs.
        image_size: side of the images.
        patch_size: side of a patch; null is an eighth of the image, 4 pixels of 32, or the next smaller divisor.
        depth: number of blocks.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        patch_size: int | None = None,
        depth: int = 12,
    ):
        patch = patch_size
        if patch is None:
            patch = max(side for side in range(1, max(1, image_size // 8) + 1) if image_size % side == 0)
        if patch < 1 or image_size % patch:
            raise ValueError(f"patch_size must divide the image_size of {image_size} pixels, got {patch}.")
        if depth < 1:
            raise ValueError(f"depth must be 1 or more blocks, got {depth}.")
        super().__init__(
            "relu",
            tokens=PatchTokens(in_channels, image_size, patch, 192),
            blocks=nn.Sequential(*(EncoderBlock(192, 3) for _ in range(depth))),
            norm=nn.LayerNorm(192),
            class_token=ClassToken(),
            fc=nn.Linear(192, num_classes),
        )
        self.image_size = image_size
