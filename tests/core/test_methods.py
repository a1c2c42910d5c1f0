"""The contract of every method with every layer kind."""

import copy
import inspect
import pickle

import pytest
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
    Method,
    Sparse,
    VariationalA,
    VariationalB,
)
from bnn_lightning.core.posteriors import LearntScale, ScaleMixture
from bnn_lightning.core.whole_network import kl, sampling, width_parameters

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
    "conv2d_reflect": (lambda: nn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="reflect"), (2, 1, 4, 4)),
}
CHANNELS = {"linear_flattened": 2}
WIDE = (-1.0, 0.3)
# Every method with every setting that changes where its noise enters, and what its draws are: one draw of the weights
# for the batch ("weights") or for each example ("examples"), or noise for each output with what independent weights
# would give it ("local"), for each element of the input ("inputs"), for each output as a whole ("outputs").
METHODS = {
    "BBB": (BBB(rho_init=WIDE), "weights"),
    "BBB_mixture": (BBB(rho_init=WIDE, prior=ScaleMixture()), "weights"),
    "Flipout": (Flipout(rho_init=WIDE), "examples"),
    "LRT": (LRT(rho_init=WIDE), "local"),
    "LRT_learnt_scale": (LRT(rho_init=WIDE, prior=LearntScale()), "local"),
    "MCDropout": (MCDropout(p=0.3), "inputs"),
    "GaussianS": (GaussianS(p=0.3), "inputs"),
    "GaussianW": (GaussianW(p=0.3), "local"),
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
each_method = pytest.mark.parametrize("name", METHODS)
each_layer = pytest.mark.parametrize("case", LAYERS)


def leaves(kind):
    below = [leaf for sub in kind.__subclasses__() for leaf in leaves(sub)]
    return below or [kind]


def build(name, case, dtype=torch.float32):
    make, shape = LAYERS[case]
    plain = make().to(dtype)
    layer = BayesianLayer(plain, METHODS[name][0], CHANNELS.get(case))
    with torch.no_grad():  # every noise with a variance of its own, so that one cannot pass for another
        for value in width_parameters(layer):
            value.sub_(0.4 * torch.rand_like(value))
    return plain, layer, torch.randn(shape, dtype=dtype)


def test_every_method_is_under_contract_with_every_word_that_it_takes():
    our_methods = {method for method in leaves(Method) if method.__module__.startswith("bnn_")}
    assert {type(method) for method, _ in METHODS.values()} == our_methods
    for kind in our_methods:
        tried = [method for method, _ in METHODS.values() if type(method) is kind]
        annotations = {}  # the last word on a setting is that of the class itself
        for base in reversed(kind.__mro__):
            annotations |= inspect.get_annotations(base, eval_str=True)
        for setting in kind.__dataclass_fields__:
            if setting == "parametrisation" and kind is not Sparse:
                continue  # the code is one: all three are tried over all methods
            words = {word for word in getattr(annotations[setting], "__args__", ()) if isinstance(word, str)}
            assert words <= {getattr(method, setting) for method in tried}


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
        spreads = [f(values[key]) for end, f in sigmas.items() for key in (f"{part}.{end}",) if key in values]
        return spreads[0].detach() if spreads else None

    def jacobian(function, *inputs):
        parts = torch.autograd.functional.jacobian(lambda *inputs: function(*inputs).flatten(), inputs)
        return torch.cat([part.flatten(1) for part in parts], 1)

    y, parameters = plain(x).detach(), plain.state_dict()
    kind, gate = METHODS[name][1], spread("weight.alpha")
    if kind == "outputs":
        by_output = gate if isinstance(plain, nn.Linear) else gate.view(-1, *(1,) * (plain.weight.dim() - 2))
        return torch.diag((y * by_output).square().flatten())
    if kind == "inputs":
        if isinstance(plain, nn.Linear):  # alphas of channels lie one after another in the features
            by_input = torch.cat([number.expand(x.shape[-1] // len(gate)) for number in gate])
        else:
            by_input = gate.view(-1, *(1,) * (plain.weight.dim() - 2))
        through = jacobian(plain, x) * (x * by_input).flatten()
        return through @ through.T
    std = {part: spread(part) for part in parameters}
    if gate is not None:
        std["weight"] = gate * parameters["weight"].abs()
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


@pytest.mark.slow
@each_layer
@each_method
def test_mean_variance_and_covariance_of_the_outputs(name, case):
    # The definition of a method is the distribution of its outputs: means, variances, and what is correlated across
    # outputs, pixels and examples.
    plain, layer, x = build(name, case, F64)
    with torch.no_grad():
        y = torch.vmap(lambda _: layer(x), randomness="different", chunk_size=2000)(torch.arange(20_000)).flatten(1)
    assert_moments(y, plain(x).flatten().detach(), covariance_of_the_outputs(name, plain, layer, x).detach())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["linear_flattened", "conv2d_groups"])
@each_method
def test_weight_draws_have_the_posteriors_mean_and_variance(name, case):
    _, layer, _ = build(name, case, F64)
    for posterior in (layer.weight, layer.bias):
        with torch.no_grad():
            draws = torch.vmap(lambda _, p=posterior: p.sample(), randomness="different")(torch.zeros(20_000))
            mean, variance = posterior.mean, posterior.variance
        assert draws.shape[1:] == mean.shape == variance.shape
        draws = (draws if draws.dim() > mean.dim() else mean.expand(20_000, *mean.shape)).flatten(1)
        for column, m, v in zip(draws.T, mean.flatten(), variance.flatten(), strict=True):
            assert_moments(column[:, None], m[None], v[None, None])


@each_layer
@each_method
def test_sampling_off_is_the_plain_layer_whatever_train_and_eval(name, case):
    # Without noise a method is its means; train() and eval() belong to batch norm and dropout.
    plain, layer, x = build(name, case)
    with sampling(layer, False):
        assert torch.equal(layer(x), plain(x))
        assert torch.equal(layer.eval()(x), plain(x))
    assert not torch.equal(layer(x), layer(x))  # eval() does not switch the noise off


@each_layer
@each_method
def test_shape_dtype_and_gradients_to_every_parameter(name, case):
    plain, layer, x = build(name, case)
    ys = [layer(x) for _ in range(20)]  # dropout may hide an input in one of them
    assert ys[0].shape == plain(x).shape
    (sum(y.square().sum() for y in ys) + kl(layer)).backward()
    for parameter, value in layer.named_parameters():
        assert torch.isfinite(value.grad).all(), parameter
        assert (value.grad != 0).all(), parameter


@each_layer
@each_method
def test_copies_and_loaded_layers_draw_the_same_noise(name, case):
    _, layer, x = build(name, case)
    other = build(name, case)[1]
    other.load_state_dict(layer.state_dict())
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        torch.manual_seed(3)
        expected = layer(x)
        torch.manual_seed(3)
        assert torch.equal(copied(x), expected)


@each_layer
@each_method
def test_layers_in_bfloat16_and_double_stay_there_and_are_finite(name, case):
    for dtype in (torch.bfloat16, F64):
        plain, layer, x = build(name, case)
        y = layer.to(dtype)(x.to(dtype))
        assert y.dtype == dtype
        assert y.shape == plain(x).shape
        assert torch.isfinite(y).all()


@each_layer
@each_method
def test_compiles_without_a_graph_break(name, case):
    _, layer, x = build(name, case)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)  # fullgraph raises at a break
    assert compiled(x).shape == layer(x).shape


@pytest.mark.slow
def test_lrt_noise_is_the_same_law_in_channels_last_memory():
    # Drawn in memory order there: same layout as the plain layer's output, same distribution, still one draw an output.
    plain, layer, x = build("LRT", "conv2d", F64)
    draws = 20_000
    rows = x[:1].repeat(draws, 1, 1, 1).to(memory_format=torch.channels_last)
    layer.to(memory_format=torch.channels_last)
    with torch.no_grad():
        y, mean = layer(rows), plain(x[:1])[0]
        variance = torch.nn.functional.conv2d(x[:1].square(), layer.weight.variance, layer.bias.variance)[0]
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert ((y.mean(0) - mean).abs() <= 5 * (variance / draws).sqrt()).all()
    covariance = y.flatten(1).T.cov()
    exact = torch.diag(variance.flatten())
    error = ((variance.flatten().outer(variance.flatten()) + exact.square()) / draws).sqrt()
    assert ((covariance - exact).abs() <= 5 * error).all()


@each_method
def test_what_methods_say_about_their_noise(name):
    method, draws = METHODS[name]
    assert (method.noise_on == "weights") == (draws in ("weights", "examples", "local"))
    assert method.examples_are_independent == (draws in ("local", "inputs", "outputs"))


@pytest.mark.parametrize("name", METHODS)
def test_equal_rows_of_a_batch_are_equal_only_under_one_draw_of_the_weights(name):
    # One draw of the weights for the batch gives equal rows equal outputs; every other kind of noise tells them apart.
    x = torch.randn(1, 4).repeat(8, 1)
    y = build(name, "linear")[1](x)
    assert (y == y[0]).all().item() == (METHODS[name][1] == "weights")


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # of switching oneDNN off
@each_method
def test_noise_is_finite_where_convolutions_round_below_zero(name):
    layer = BayesianLayer(nn.Conv2d(16, 32, 3, padding=1, bias=False), METHODS[name][0])
    torch.manual_seed(0)
    x = torch.zeros(32, 16, 32, 32)
    x[..., :10, :10] = 3 * torch.randn(32, 16, 10, 10)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.isfinite(layer(x)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_method
def test_autocast_keeps_variances_and_kl_in_float32(name, dtype):
    # In half precision small variances are 0, and a sum over many weights loses its digits.
    _, layer, x = build(name, "linear")
    seen = []

    class Spy:
        def __getattr__(self, attribute):
            return getattr(layer.op, attribute)

        def __call__(self, x, weight, bias):
            seen.append((torch.is_autocast_enabled("cpu"), x.dtype, weight.dtype))
            return layer.op(x, weight, bias)

    torch.manual_seed(1)
    exact = kl(layer)
    with torch.autocast("cpu", dtype):
        y = layer.method.forward(Spy(), x, layer.weight, layer.bias)
        torch.manual_seed(1)  # the mixture prior's KL is a draw
        inside = kl(layer)
    assert y.dtype == dtype
    torch.testing.assert_close(inside, exact, rtol=1e-6, atol=0)
    assert torch.isfinite(y.float().square().mean())
    if METHODS[name][1] == "local":
        assert seen[1] == (False, torch.float32, torch.float32)


FOLLOWERS = {
    "relu": (nn.ReLU(inplace=True), nn.ReLU()),
    "silu": (nn.SiLU(inplace=True), nn.SiLU()),
    "arithmetic": (lambda y: y.mul_(2).add_(1), lambda y: 2 * y + 1),
}


@pytest.mark.parametrize("follower", FOLLOWERS)
@pytest.mark.parametrize("case", ["linear", "conv2d", "conv1d"])
@each_method
def test_an_in_place_operation_may_follow(name, case, follower):
    # A layer that returned a view would have torch refuse the change, or spoil what backward reads.
    _, layer, x = build(name, case, F64)
    gradients = []
    for operation in FOLLOWERS[follower]:
        torch.manual_seed(2)
        layer.zero_grad()
        operation(layer(x)).square().sum().backward()
        gradients.append([None if value.grad is None else value.grad.clone() for value in layer.parameters()])
    for in_place, fresh in zip(*gradients, strict=True):
        torch.testing.assert_close(in_place, fresh, rtol=1e-12, atol=1e-12)
