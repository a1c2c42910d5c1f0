"""The contract of every method with every layer kind."""

import copy
import pickle

import pytest
import torch
from torch import nn

from bnn_lightning.layers import BayesianLayer, kl, sampling
from bnn_lightning.methods import BBB, LRT, GaussianMethod, Method

F64 = torch.float64

LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), (2, 4)),
    "linear_no_bias": (lambda: nn.Linear(4, 3, bias=False), (2, 4)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 2, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), (2, 2, 4, 4)),
    "conv2d_no_bias_padding": (lambda: nn.Conv2d(1, 2, 3, padding=1, bias=False), (2, 1, 3, 3)),
    "conv2d_stride_dilation": (lambda: nn.Conv2d(1, 2, 2, stride=2, dilation=2, padding=1), (2, 1, 5, 5)),
    "conv2d_groups": (lambda: nn.Conv2d(4, 4, 2, groups=2), (2, 4, 3, 3)),
    "conv2d_same": (lambda: nn.Conv2d(1, 2, (3, 1), padding="same", dilation=2), (2, 1, 5, 3)),
    "conv2d_circular": (lambda: nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), (2, 1, 3, 3)),
    "conv2d_reflect": (lambda: nn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="reflect"), (2, 1, 4, 4)),
}

# What a method's draws are correlated by: "weights" where a whole batch shares one draw, "nothing" where every output
# has noise of its own. A method that is not listed here has no contract yet, and fails.
SHARED = {BBB: "weights", LRT: "nothing"}


def leaves(kind):
    found = [leaf for sub in kind.__subclasses__() for leaf in leaves(sub)]
    return found or [kind]


METHODS = [
    pytest.param(method, id=method.__name__) for method in leaves(Method) if method.__module__.startswith("bnn_")
]
each_method = pytest.mark.parametrize("method", METHODS)
each_layer = pytest.mark.parametrize("case", LAYERS)


def build(method, case, dtype=torch.float32):
    make, shape = LAYERS[case]
    plain = make().to(dtype)
    return plain, BayesianLayer(plain, method(rho_init=(-1.0, 0.3))), torch.randn(shape, dtype=dtype)


def test_every_method_is_under_contract():
    assert {param.values[0] for param in METHODS} == set(SHARED)


@each_layer
@each_method
def test_mean_variance_and_covariance_of_the_outputs(method, case):
    # T2.3, T2.4. The op is linear in its weights, so y = J w + const and Cov(y) = J diag(sigma^2) J^T, whatever the
    # geometry; a method whose noise sits on the outputs keeps only the diagonal.
    plain, layer, x = build(method, case, F64)
    draws = 20_000
    with torch.no_grad():
        y = torch.vmap(lambda _: layer(x), randomness="different", chunk_size=2000)(torch.arange(draws)).flatten(1)
        mean = plain(x).flatten()
        names = [name for name, _ in plain.named_parameters()]
        variances = torch.cat([getattr(layer, name).rho.flatten().exp().log1p().square() for name in names])
    jacobians = torch.autograd.functional.jacobian(
        lambda *weights: torch.func.functional_call(plain, dict(zip(names, weights, strict=True)), (x,)).flatten(),
        tuple(plain.state_dict().values()),
    )
    jacobian = torch.cat([part.flatten(1) for part in jacobians], 1)
    covariance = jacobian @ torch.diag(variances) @ jacobian.T
    if SHARED[method] == "nothing":
        covariance = torch.diag(covariance.diagonal())
    variance = covariance.diagonal()
    assert ((y.mean(0) - mean).abs() <= 5 * (variance / draws).sqrt()).all()
    error = ((variance.outer(variance) + covariance.square()) / draws).sqrt()
    assert ((y.T.cov() - covariance).abs() <= 5 * error).all()


@each_layer
@each_method
def test_sampling_off_is_the_plain_layer_whatever_train_and_eval(method, case):
    # T2.8
    plain, layer, x = build(method, case)
    with sampling(layer, False):
        assert torch.equal(layer(x), plain(x))
        assert torch.equal(layer.eval()(x), plain(x))
    assert not torch.equal(layer(x), layer(x))  # eval() does not switch the noise off


@each_layer
@each_method
def test_shape_dtype_and_gradients_to_every_parameter(method, case):
    plain, layer, x = build(method, case)
    y = layer(x)
    assert y.shape == plain(x).shape
    (y.square().sum() + kl(layer)).backward()
    for name, parameter in layer.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).all(), name


@each_layer
@each_method
def test_copies_and_state_dict(method, case):
    _, layer, x = build(method, case)
    other = build(method, case)[1]
    other.load_state_dict(layer.state_dict())
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        torch.manual_seed(3)
        expected = layer(x)
        torch.manual_seed(3)
        assert torch.equal(copied(x), expected)


@each_layer
@each_method
def test_bfloat16_and_double_layers(method, case):
    for dtype in (torch.bfloat16, F64):
        plain, layer, x = build(method, case)
        y = layer.to(dtype)(x.to(dtype))
        assert y.dtype == dtype
        assert y.shape == plain(x).shape
        assert torch.isfinite(y).all()


@each_layer
@each_method
def test_compiles_without_a_graph_break(method, case):
    _, layer, x = build(method, case)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="eager", fullgraph=True)  # fullgraph raises at a break
    assert compiled(x).shape == layer(x).shape


def test_lrt_noise_in_channels_last_memory():
    # Drawn in memory order there: same layout as the plain layer's output, same distribution, still one draw an output.
    plain, layer, x = build(LRT, "conv2d", F64)
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


def test_equal_rows_of_a_batch():
    # T2.4
    x = torch.randn(1, 4).repeat(2, 1)
    for method, equal in ((BBB, True), (LRT, False)):
        y = BayesianLayer(nn.Linear(4, 3), method(rho_init=(-1.0, 0.1)))(x)
        assert torch.equal(y[0], y[1]) == equal


def test_lrt_variance_does_not_see_the_mean_of_the_bias():
    # T2.5: a mean bias in the variance path gives a negative variance, then NaN.
    plain = nn.Conv2d(1, 2, 3, padding=1)
    layer = BayesianLayer(plain, LRT(rho_init=(-1.0, 0.1)))
    x = torch.randn(64, 1, 5, 5)
    torch.manual_seed(1)
    before = layer(x)
    with torch.no_grad():
        layer.bias.mu.fill_(-100.0)
    torch.manual_seed(1)
    after = layer(x)
    assert torch.isfinite(after).all()
    torch.testing.assert_close(
        after - layer.bias.mu.view(1, -1, 1, 1), before - plain.bias.view(1, -1, 1, 1), atol=1e-4, rtol=0
    )


def test_lrt_gradients_are_finite_on_blank_images():
    # T2.6: without eps the square root's gradient is infinite where the variance is exactly zero.
    layer = BayesianLayer(nn.Conv2d(1, 2, 3, padding=1, bias=False), LRT())
    x = torch.zeros(2, 1, 5, 5, requires_grad=True)
    layer(x).sum().backward()
    for gradient in (x.grad, layer.weight.mu.grad, layer.weight.rho.grad):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@each_method
def test_autocast_keeps_variances_and_kl_in_float32(method, dtype):
    # T2.9
    seen = []

    def op(x, weight, bias):
        seen.append((torch.is_autocast_enabled("cpu"), x.dtype, weight.dtype))
        return nn.functional.linear(x, weight, bias)

    layer = BayesianLayer(nn.Linear(8, 8), method())
    exact = kl(layer)
    with torch.autocast("cpu", dtype):
        y = layer.method.forward(op, torch.randn(4, 8), layer.weight, layer.bias)
        inside = kl(layer)
    assert y.dtype == dtype
    torch.testing.assert_close(inside, exact, rtol=1e-6, atol=0)
    assert torch.isfinite(y.float().square().mean())
    if method is LRT:
        assert seen[1] == (False, torch.float32, torch.float32)


def test_lrt_noise_gradcheck():
    # T2.13, with the noise held fixed
    from bnn_lightning.methods.gaussian import AddNoise

    mean = torch.randn(5, dtype=F64, requires_grad=True)
    variance = torch.rand(5, dtype=F64).add(0.1).requires_grad_()
    noise = torch.randn(5, dtype=F64)
    assert torch.autograd.gradcheck(lambda m, v: AddNoise.apply(m, v, noise)[0], (mean, variance))
    torch.testing.assert_close(AddNoise.apply(mean, variance, noise)[0], mean + variance.sqrt() * noise)


def test_lrt_gradients_vary_less_than_bbb():
    # T2.10, batch of 128
    x, labels = torch.randn(128, 20), torch.randint(0, 5, (128,))
    plain = nn.Linear(20, 5)

    def total_variance(method):
        layer = BayesianLayer(plain, method(rho_init=(-2.0, 0.0)))
        gradients = []
        for _ in range(400):
            layer.zero_grad()
            nn.functional.cross_entropy(layer(x), labels).backward()
            gradients.append(torch.cat([layer.weight.mu.grad.flatten(), layer.weight.rho.grad.flatten()]))
        return torch.stack(gradients).var(0).sum()

    assert total_variance(LRT) < 0.5 * total_variance(BBB)


def test_priors_dict_of_the_reference():
    # T2.12
    assert BBB.from_priors(None) == BBB(prior_mu=0.0, prior_sigma=0.1, mu_init=(0.0, 0.1), rho_init=(-3.0, 0.1))
    given = {"prior_sigma": 0.3, "posterior_rho_initial": (-5, 0.2)}
    assert LRT.from_priors(given) == LRT(prior_sigma=0.3, mu_init=(0.0, 0.1), rho_init=(-5, 0.2))
    with pytest.raises(ValueError, match=r"^priors has the unknown key 'prior_rho'; known keys: prior_mu, prior_sigma"):
        LRT.from_priors({"prior_rho": 1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior_sigma": -0.1}, "prior_sigma must be a positive standard deviation such as 0.1, got -0.1."),
        ({"prior_sigma": float("nan")}, "prior_sigma must be a positive standard deviation such as 0.1, got nan."),
        ({"prior_mu": float("inf")}, "prior_mu must be a finite number such as 0, got inf."),
        ({"rho_init": (1, -1)}, r"rho_init must be (mean, std) with std >= 0, such as (-5, 0.1), got (1, -1)."),
        ({"mu_init": (1,)}, r"mu_init must be (mean, std) with std >= 0, such as (-5, 0.1), got (1,)."),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        BBB(**settings)
    assert str(error.value) == message


def test_initial_values():
    layer = nn.Linear(200, 200)
    kept = GaussianMethod.weight(BBB(), layer.weight)
    assert torch.equal(kept.mu, layer.weight)
    assert kept.mu is not layer.weight
    drawn = GaussianMethod.weight(BBB(mu_init=(0.5, 0.1)), layer.weight)
    assert drawn.mu.mean().item() == pytest.approx(0.5, abs=5 * 0.1 / 200)
    assert drawn.mu.std().item() == pytest.approx(0.1, rel=5 / 200)
    assert drawn.rho.mean().item() == pytest.approx(-5, abs=5 * 0.1 / 200)
