"""Networks that have tokens on their first axis, as torch's ``batch_first=False`` does."""

import pytest
import torch
from torch import nn

from bnn_lightning import MCDropout, Rank1, Sampler, bayesianize, mutual_information

X = torch.randn(6, 2, 5, 5, generator=torch.Generator().manual_seed(1))


class TokensFirst(nn.Module):
    """Rows of an image as tokens ``(tokens, batch, features)``: the layout of torch's ``batch_first=False``."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x):
        tokens = x.transpose(1, 2).flatten(2).transpose(0, 1)
        return self.head(self.embedding(tokens).relu()).mean(0)


@pytest.mark.parametrize("method", [MCDropout(0.3, mask="channel"), Rank1(scale_init=0.3)], ids=repr)
@pytest.mark.parametrize("chunk", [1, 1000])
def test_tokens_first_do_not_share_noise_between_draws(method, chunk):
    # The noise is that of a row of the first axis, a token: copies of an image behind one another would share it.
    torch.manual_seed(0)
    logits = Sampler(bayesianize(TokensFirst(), method), 5, "local", chunk=chunk)(X)
    assert len({tuple(sample.flatten().tolist()) for sample in logits}) == 5
    assert (mutual_information(logits) > 1e-4).all()
