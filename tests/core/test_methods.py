"""The contract of every method with every layer kind."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from bnn_lightning.core.layers import BayesianLayer
from bnn_lightning.core.methods import Method, Sparse
from bnn_lightning.core.whole_network import kl, sampling
from tests.core.contract import (
    F64,
    LAYERS,
    METHODS,
    ON_WEIGHTS,
    ONE_DRAW,
    WITH_MOMENTS,
    assert_moments,
    build,
    covariance_of_the_outputs,
)

each_method = pytest.mark.parametrize("name", METHODS)
each_method_with_moments = pytest.mark.parametrize("name", WITH_MOMENTS)
each_layer = pytest.mark.parametrize("case", LAYERS)
# What breaks a graph is a method or a layer, not the pair of them, and a compilation takes most of a second: every
# method on three layers, and every layer under one method of each way to draw.
OF_EACH_WAY = {way: name for name, (_, way) in reversed(METHODS.items())}.values()
COMPILED = [
    (name, case)
    for name in METHODS
    for case in LAYERS
    if name in OF_EACH_WAY or case in ("linear_sequence", "conv2d_groups", "transposed1d")
]


def leaves(kind):
    below = [leaf for sub in kind.__subclasses__() for leaf in leaves(sub)]
    return below or [kind]


def test_every_method_is_under_contract_with_every_word_that_it_takes():
    # Those that an inference brings are its own part, and not to be chosen.
    our_methods = {method for method in leaves(Method) if method.__module__.startswith("bnn_lightning.core.")}
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


@pytest.mark.slow
@each_layer
@each_method_with_moments
def test_mean_variance_and_covariance_of_the_outputs(name, case):
    # The definition of a method is the distribution of its outputs: means, variances, and what is correlated across
    # outputs, pixels and examples.
    plain, layer, x = build(name, case, F64)
    with torch.no_grad():
        y = torch.vmap(lambda _: layer(x), randomness="different", chunk_size=2000)(torch.arange(20_000)).flatten(1)
    assert_moments(y, plain(x).flatten().detach(), covariance_of_the_outputs(name, plain, layer, x).detach())


@pytest.mark.slow
@pytest.mark.parametrize("case", ["linear_flattened", "conv2d_groups"])
@each_method_with_moments
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
    first = layer(x)  # eval() does not switch the noise off; a mask of few channels may come twice
    assert any(not torch.equal(layer(x), first) for _ in range(20))


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


@pytest.mark.parametrize(("name", "case"), COMPILED)
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
    assert (method.noise_on == "weights") == (draws in ON_WEIGHTS)
    assert method.examples_are_independent == (draws not in (*ONE_DRAW, "examples"))


@pytest.mark.parametrize("name", METHODS)
def test_equal_rows_of_a_batch_are_equal_only_under_one_draw_of_the_weights(name):
    # One draw of the weights for the batch gives equal rows equal outputs; every other kind of noise tells them apart.
    x = torch.randn(1, 4).repeat(8, 1)
    y = build(name, "linear")[1](x)
    assert (y == y[0]).all().item() == (METHODS[name][1] in ONE_DRAW)


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
