"""Steps, learning rates and what optimisers are given."""

import pytest
import torch

from bnn_lightning import BBB, LRT, HierarchicalA, Sparse
from bnn_lightning.inference.learning_rates import Plateau
from tests.training.helpers import digits, fit, tiny


def test_total_and_per_datum_form_take_the_same_steps():
    # Adam with epsilon / N undoes the division of the loss by N.
    weights = []
    for form in ("per_datum", "total"):
        model = tiny(BBB(), loss_form=form)
        trainer = fit(model)
        eps = trainer.optimizers[0].param_groups[0]["eps"]
        assert eps == (1e-8 if form == "total" else 1e-8 / 400)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("form", "eps"), [("per_datum", 1e-8), ("total", 4e-6)])
def test_forms_of_the_loss_take_the_same_steps_without_a_kl(form, eps):
    assert fit(tiny(loss_form=form)).optimizers[0].param_groups[0]["eps"] == pytest.approx(eps, rel=1e-12)


def test_gradients_are_clipped_in_mixed_precision():
    for clip in (None, 0.5):
        trainer = fit(tiny(LRT()), precision="bf16-mixed", gradient_clip_val=clip)
        assert trainer.optimizers[0].defaults["fused"] == (clip is None)


def test_rho_has_a_learning_rate_of_its_own():
    trainer = fit(tiny(BBB(), lr=1e-3, rho_lr_factor=10))
    groups = {group["lr"]: group["params"] for group in trainer.optimizers[0].param_groups}
    assert set(groups) == {1e-3, 1e-2}
    model = trainer.lightning_module
    assert {id(p) for p in groups[1e-2]} == {id(p) for n, p in model.named_parameters() if n.endswith("rho")}


def test_plateau_follows_validation_nll():
    trainer = fit(tiny(BBB(), lr_schedule=Plateau()), epochs=2)
    config = trainer.lr_scheduler_configs[0]
    assert (config.monitor, config.scheduler.factor, config.scheduler.patience) == ("val/nll", 0.1, 6)


def test_rho_lr_factor_is_for_every_kind_of_spread():
    for method in (LRT(), Sparse(), Sparse(parametrisation="log_sigma"), HierarchicalA()):
        model = tiny(method, rho_lr_factor=7.0, lr=1e-3)
        trainer = fit(model)
        rates = {id(p): group["lr"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
        for name, parameter in model.network.named_parameters():
            fast = name.split(".")[-1] in ("rho", "log_sigma2", "log_sigma", "log_alpha")
            assert rates[id(parameter)] == pytest.approx(7e-3 if fast else 1e-3)


def test_sgd_with_momentum_takes_the_steps_of_its_formula():
    steps = []
    model = tiny(optimizer="sgd", momentum=0.9, lr=0.1).double()
    model.on_train_batch_end = lambda *_: steps.append((parameter.grad.clone(), parameter.detach().clone()))
    parameter = model.network[2].weight
    before = parameter.detach().clone()
    fit(model, digits(batch_size=200), epochs=2, precision="64-true", limit_val_batches=0)
    velocity = torch.zeros_like(before)
    assert len(steps) == 4
    for gradient, after in steps:
        velocity = 0.9 * velocity + gradient
        before = before - 0.1 * velocity
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "rmsprop"}, r"^optimizer must be adam or sgd, got 'rmsprop'\.$"),
        ({"momentum": 0.9}, r"^momentum must be 0 with adam, which has its own, got 0\.9\.$"),
        ({"optimizer": "sgd", "momentum": 1.0}, r"^momentum must be from 0 to below 1, got 1\.0\.$"),
        ({"optimizer": "sgd", "loss_form": "total"}, r"^loss_form must be per_datum with sgd, .* got total\.$"),
    ],
)
def test_settings_of_the_optimizer_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(BBB(), **settings)
