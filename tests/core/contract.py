"""The layer kinds and methods that are under contract, and the distribution of their outputs in closed form."""

from functools import partial

import torch
from torch import nn

from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import (
    BBB,
    LRT,
    Flipout,
    GaussianS,
    GaussianW,
    HierarchicalA,
    HierarchicalB,
    MCDropout,
    Rank1,
    Sparse,
    VariationalA,
    VariationalB,
)
from bnn_lightning.core.posteriors import LowRank, Radial
from bnn_lightning.core.priors import FanIn, LearntScale, ScaleMixture
from bnn_lightning.core.whole_network import width_parameters

F64 = torch.float64
LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "linear_no_bias": (lambda: nn.Linear(4, 3, bias=False), (2, 4)),
    "linear_sequence": (lambda: nn.Linear(3, 2), (2, 2, 3)),
    "linear_flattened": (lambda: nn.Linear(6, 3), (2, 6)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 2, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), (2, 2, 4, 4)),
    "conv2d_no_bias_padding": (lambda: nn.Conv2d(1, 2, 3, padding=1, bias=False), (2, 1, 3, 3)),
    "conv2d_stride_dilation": (lambda: nn.Conv2d(1, 2, 2, stride=2, dilation=2, padding=1), (2, 1, 5, 5)),
    "conv2d_groups": (lambda: nn.Conv2d(4, 4, 2, groups=2), (2, 4, 3, 3)),
    "conv2d_same": (lambda: nn.Conv2d(1, 2, (3, 1), padding="same", dilation=2), (2, 1, 5, 3)),
    "conv2d_circular": (lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (2, 1, 3, 3)),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2), (2, 1, 2, 3, 2)),
    "transposed1d": (lambda: nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 2, 3)),
    "transposed2d_groups": (lambda: nn.ConvTranspose2d(4, 4, 2, groups=2, dilation=2), (2, 4, 2, 2)),
    "transposed3d_no_bias": (lambda: nn.ConvTranspose3d(1, 2, 2, bias=False), (2, 1, 1, 2, 1)),
    "conv2d_reflect": (lambda: nn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="reflect"), (2, 1, 4, 4)),
}
CHANNELS = {"linear_flattened": 2}
WIDE = (-1.0, 0.3)
# Every method with every setting that changes where its noise enters, and what its draws are: one draw of the weights
# for the batch ("weights") or for each example ("examples"), or noise for each output with what independent weights
# would give it ("local"), for each element of the input ("inputs"), for each channel of each example's input
# ("channels"), for each channel of the input and the same for all examples ("columns"), for each output as a whole
# ("outputs"), or a factor for each input and output channel of each example ("factors"; "heavy tails" if they have no
# moments).
METHODS = {
    "BBB": (BBB(rho_init=WIDE), "weights"),
    "BBB_mixture": (BBB(rho_init=WIDE, prior=ScaleMixture()), "weights"),
    "BBB_radial": (BBB(rho_init=(1.0, 0.3), posterior=Radial), "weights"),
    "BBB_low_rank": (BBB(rho_init=WIDE, posterior=LowRank), "weights"),
    "Flipout": (Flipout(rho_init=WIDE), "examples"),
    "Flipout_radial": (Flipout(rho_init=(1.0, 0.3), posterior=Radial), "examples"),
    "Flipout_low_rank": (Flipout(rho_init=WIDE, posterior=partial(LowRank, rank=1)), "examples"),
    "LRT": (LRT(rho_init=WIDE), "local"),
    "LRT_learnt_scale": (LRT(rho_init=WIDE, prior=LearntScale()), "local"),
    "LRT_low_rank": (LRT(rho_init=WIDE, posterior=LowRank, prior=FanIn()), "local"),
    "MCDropout": (MCDropout(p=0.3), "inputs"),
    "MCDropout_channel": (MCDropout(p=0.3, mask="channel"), "channels"),
    "MCDropout_shared": (MCDropout(p=0.3, shared=True), "columns"),
    "MCDropout_shared_channel": (MCDropout(p=0.3, mask="channel", shared=True), "columns"),
    "GaussianS": (GaussianS(p=0.3), "inputs"),
    "GaussianS_channel": (GaussianS(p=0.3, mask="channel"), "channels"),
    "GaussianS_shared": (GaussianS(p=0.3, shared=True), "columns"),
    "GaussianW": (GaussianW(p=0.3), "local"),
    "Rank1": (Rank1(scale_init=0.5), "factors"),
    "Rank1_cauchy": (Rank1(family="cauchy"), "heavy tails"),
    "VariationalA": (VariationalA(p=0.3), "inputs"),
    "VariationalA_channel": (VariationalA(p=0.3, alpha="channel", parametrisation="log_sigma"), "inputs"),
    "VariationalB": (VariationalB(p=0.3), "local"),
    "VariationalB_output": (VariationalB(p=0.3, alpha="output"), "local"),
    "VariationalB_layer": (VariationalB(p=0.3, alpha="layer", parametrisation="log_sigma2"), "local"),
    "VariationalB_additive": (VariationalB(sigma_init=1e-3, parametrisation="log_sigma2"), "local"),
    "VariationalB_on_outputs": (VariationalB(p=0.3, noise_on="outputs", parametrisation="log_sigma"), "outputs"),
    "HierarchicalA": (HierarchicalA(p=0.3), "inputs"),
    "HierarchicalA_channel": (HierarchicalA(p=0.3, alpha="channel", parametrisation="log_sigma2"), "inputs"),
    "HierarchicalB": (HierarchicalB(p=0.3), "local"),
    "HierarchicalB_output": (HierarchicalB(p=0.3, alpha="output"), "local"),
    "HierarchicalB_layer": (HierarchicalB(p=0.3, alpha="layer"), "local"),
    "HierarchicalB_on_outputs": (HierarchicalB(p=0.3, noise_on="outputs", parametrisation="log_sigma2"), "outputs"),
    "HierarchicalB_additive": (HierarchicalB(sigma_init=0.3, parametrisation="log_sigma"), "local"),
    "Sparse": (Sparse(sigma_init=0.3), "local"),
    "Sparse_pruned": (Sparse(sigma_init=1e-3, prune_in_training=True), "local"),
    "Sparse_log_sigma": (Sparse(sigma_init=0.3, parametrisation="log_sigma"), "local"),
    "Sparse_multiplicative": (Sparse(p=0.3, parametrisation="log_alpha"), "local"),
    "Sparse_output": (Sparse(p=0.3, alpha="output"), "local"),
    "Sparse_layer": (Sparse(p=0.3, alpha="layer"), "local"),
    "Sparse_on_outputs": (Sparse(p=0.3, noise_on="outputs"), "outputs"),
}
WITH_MOMENTS = [name for name, (_, draws) in METHODS.items() if draws != "heavy tails"]
ON_WEIGHTS = ("weights", "examples", "local", "columns", "factors", "heavy tails")  # what draws of weights can give
ONE_DRAW = ("weights", "columns")  # for the batch


def build(name, case, dtype=torch.float32):
    make, shape = LAYERS[case]
    plain = make().to(dtype)
    layer = BayesianLayer(plain, METHODS[name][0], CHANNELS.get(case))
    with torch.no_grad():  # every noise with a variance of its own, so that one cannot pass for another
        for value in width_parameters(layer):
            value.sub_(0.4 * torch.rand_like(value))
    return plain, layer, torch.randn(shape, dtype=dtype)


def along_outputs(gate, plain):
    """Gates in a shape that broadcasts to the weight: a transposed convolution has its outputs on the second axis."""
    weight = plain.weight
    if not isinstance(plain, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) or len(gate) in (1, 0):
        return gate
    if gate.shape[1:].numel() > 1 or gate.shape == weight.shape:
        return gate
    groups = [gate.flatten().chunk(plain.groups)[row // (len(weight) // plain.groups)] for row in range(len(weight))]
    return torch.stack(groups).view(*weight.shape[:2], *(1,) * (weight.dim() - 2))


def covariance_of_the_outputs(name, plain, layer, x):
    """In closed form, from the parameters alone: the plain layer is linear in its weights, and in its input."""
    values = dict(layer.named_parameters()) | dict(layer.named_buffers())
    sigmas = {
        "rho": lambda v: v.exp().log1p(),
        "log_sigma2": lambda v: (v / 2).exp(),
        "log_sigma": lambda v: v.exp(),
        "log_alpha": lambda v: (v / 2).exp(),
        "value": lambda v: v.sqrt(),
    }

    def spread(part):  # of a posterior, whatever it is parametrised by
        if f"{part}.log_u" in values:
            sums = values[f"{part}.log_u"].exp() @ values[f"{part}.log_v"].exp()
            return sums.reshape(parameters[part].shape).detach()
        spreads = [f(values[key]) for end, f in sigmas.items() for key in (f"{part}.{end}",) if key in values]
        if spreads and getattr(layer.method, "posterior", None) is Radial:
            return spreads[0].detach() / spreads[0].numel() ** 0.5
        return spreads[0].detach() if spreads else None

    def jacobian(function, *inputs):
        parts = torch.autograd.functional.jacobian(lambda *inputs: function(*inputs).flatten(), inputs)
        return torch.cat([part.flatten(1) for part in parts], 1)

    y, parameters = plain(x).detach(), plain.state_dict()
    kind, gate = METHODS[name][1], spread("weight.alpha")
    if kind == "outputs":
        by_output = gate if isinstance(plain, nn.Linear) else gate.view(-1, *(1,) * (plain.weight.dim() - 2))
        return torch.diag((y * by_output).square().flatten())
    if kind in ("channels", "columns"):

        def scaled(factors):  # the inputs, times a number for each channel of each example
            if isinstance(plain, nn.Linear):
                factors = factors.repeat_interleave(x.shape[-1] // factors.shape[1], 1)
                return x * factors.view(len(x), *(1,) * (x.dim() - 2), -1)
            return x * factors.view(*factors.shape, *(1,) * (x.dim() - 2))

        rows = len(x) if kind == "channels" else 1
        ones = torch.ones(rows, len(gate), dtype=F64)
        through = jacobian(lambda factors: plain(scaled(factors.expand(len(x), -1))), ones) * gate.repeat(rows)
        return through @ through.T
    if kind == "factors":
        return covariance_of_factors(plain, layer, x, jacobian)
    if kind == "inputs":
        if isinstance(plain, nn.Linear):  # alphas of channels lie one after another in the features
            by_input = torch.cat([number.expand(x.shape[-1] // len(gate)) for number in gate])
        else:
            by_input = gate.view(-1, *(1,) * (plain.weight.dim() - 2))
        through = jacobian(plain, x) * (x * by_input).flatten()
        return through @ through.T
    std = {part: spread(part) for part in parameters}
    if gate is not None:
        std["weight"] = along_outputs(gate, plain) * parameters["weight"].abs()
    std = [torch.zeros_like(parameters[part]) if std[part] is None else std[part] for part in parameters]

    def call(*weights):
        return torch.func.functional_call(plain, dict(zip(parameters, weights, strict=True)), (x,))

    through = jacobian(call, *parameters.values()) * torch.cat([number.flatten() for number in std])
    covariance = through @ through.T
    if kind == "local":
        return torch.diag(covariance.diagonal())
    if kind == "examples":
        blocks = torch.block_diag(*[torch.ones(y[0].numel(), y[0].numel(), dtype=F64)] * len(y))
        return covariance * blocks
    return covariance


def covariance_of_factors(plain, layer, x, jacobian):
    """Of y = r (W x s) + b with independent r and s of mean 1, example by example."""
    r, s = (factor.rho.detach().exp().log1p() for factor in (layer.weight.outputs, layer.weight.inputs))
    without_bias = {"bias": torch.zeros_like(plain.bias)} if plain.bias is not None else {}

    def linear(example):
        return torch.func.functional_call(plain, without_bias, (example[None],))[0]

    def per_channel(values, like):  # in the shape of an example's input or output
        if isinstance(plain, nn.Linear):
            return values.expand_as(like)
        return values.view(-1, *(1,) * (like.dim() - 1)).expand_as(like)

    blocks = []
    for example in x:
        y = linear(example).detach()
        by_input = jacobian(lambda s, example=example: linear(example * per_channel(s, example)), torch.ones_like(s))
        by_output = jacobian(lambda r, y=y: y * per_channel(r, y), torch.ones_like(r))
        from_inputs = by_input * s @ (by_input * s).T
        same_output = ((by_output != 0).to(F64) * r.square()) @ (by_output != 0).to(F64).T
        y = y.flatten()
        blocks.append(from_inputs + same_output * (from_inputs + y.outer(y)))
    return torch.block_diag(*blocks)


def assert_moments(draws, mean, covariance):
    """Mean and covariance of ``draws`` (rows) are these, within 5 standard errors that are estimated from the draws."""
    count = len(draws)
    centred = draws - mean
    # A rounding error is left for what has no variance at all.
    error = covariance.diagonal().sqrt() / count**0.5 + 1e-12
    assert (centred.mean(0).abs() <= 5 * error).all()
    estimated = centred.T @ centred / count
    error = ((centred.square().T @ centred.square() / count - estimated.square()).clamp_min(0) / count).sqrt() + 1e-12
    assert ((estimated - covariance).abs() <= 5 * error).all()
