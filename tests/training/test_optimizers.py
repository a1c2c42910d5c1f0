"""Steps, learning rates and what optimisers are given."""

import math
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateFinder

from bnn_lightning import BBB, LRT, Cosine, HierarchicalA, LinearDecay, Plateau, Sparse, Variational
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
        assert bool(trainer.optimizers[0].param_groups[0]["fused"]) == (clip is None)


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
    model = tiny(optimizer=partial(torch.optim.SGD, momentum=0.9), lr=0.1).double()
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


def test_the_total_form_needs_an_optimizer_that_divides_by_the_size_of_gradients():
    with pytest.raises(ValueError, match=r"^loss_form must be per_datum with SGD, .* got total\.$"):
        Variational(optimizer=torch.optim.SGD, loss_form="total")


def test_the_optimizers_own_rate_counts_where_inference_has_none_and_two_rates_are_refused():
    own = partial(torch.optim.AdamW, lr=0.05)
    assert Variational().lr == 1e-3
    assert Variational(optimizer=own).lr == 0.05
    assert Variational(lr=0.05, optimizer=own).lr == 0.05
    with pytest.raises(ValueError, match=r"^lr must be one number for inference and optimizer, got 0\.01 and 0\.05\.$"):
        Variational(lr=0.01, optimizer=own)


def test_weight_decay_is_for_means_and_not_for_widths():
    trainer = fit(tiny(BBB(), optimizer=partial(torch.optim.AdamW, weight_decay=0.1)))
    assert [group["weight_decay"] for group in trainer.optimizers[0].param_groups] == [0.1, 0.0]


def test_adamw_takes_the_steps_of_its_formula():
    # Loshchilov & Hutter 2019 (arXiv:1711.05101), algorithm 2, beside the gradients of the run.
    steps = []
    model = tiny(optimizer=partial(torch.optim.AdamW, weight_decay=0.3), lr=0.01).double()
    model.on_train_batch_end = lambda *_: steps.append((parameter.grad.clone(), parameter.detach().clone()))
    parameter = model.network[2].weight
    before = parameter.detach().clone()
    fit(model, digits(batch_size=200), epochs=2, precision="64-true", limit_val_batches=0)
    first, second = torch.zeros_like(before), torch.zeros_like(before)
    assert len(steps) == 4
    for t, (gradient, after) in enumerate(steps, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        step = first / (1 - 0.9**t) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
        before = before - 0.01 * 0.3 * before - 0.01 * step
        torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-12)


def test_schedules_of_torch_move_the_rate_from_epoch_to_epoch():
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=4)
    seen = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer, model):
            seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    fit(tiny(BBB(), lr=0.1, rho_lr_factor=10.0, lr_schedule=cosine), epochs=4, callbacks=[Rates()])
    expected = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert [rate for rate, _ in seen] == pytest.approx(expected)
    assert [fast for _, fast in seen] == pytest.approx([10 * rate for rate in expected])
    ours = []
    seen = ours
    fit(tiny(BBB(), lr=0.1, rho_lr_factor=10.0, lr_schedule=Cosine()), epochs=4, callbacks=[Rates()])
    assert [rate for rate, _ in ours] == pytest.approx(expected)


def test_a_plateau_of_torch_is_stepped_by_the_validation_nll():
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=3)
    trainer = fit(tiny(BBB(), lr_schedule=plateau), epochs=2)
    assert (trainer.lr_scheduler_configs[0].monitor, trainer.lr_scheduler_configs[0].scheduler.patience) == (
        "val/nll",
        3,
    )


@pytest.mark.parametrize(
    "schedule",
    [
        None,
        LinearDecay(),
        Cosine(),
        Plateau(),
        partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=3),
        partial(torch.optim.lr_scheduler.LinearLR, start_factor=0.5, total_iters=2),
    ],
    ids=["constant", "linear", "cosine", "plateau", "torch_cosine", "torch_linear"],
)
def test_a_rate_that_is_found_trains_under_every_schedule_and_keeps_the_factor(schedule):
    class Found(Callback):
        """As Lightning's LearningRateFinder does when a fit starts: the attribute, then every group alike."""

        def on_fit_start(self, trainer, model):
            model.lr = 0.04
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = 0.04

    class Rates(Callback):
        def on_train_epoch_start(self, trainer, model):
            rates[-1].append([group["lr"] for group in trainer.optimizers[0].param_groups])

    rates = []
    for lr, callbacks in ((0.04, [Rates()]), (0.01, [Found(), Rates()])):
        rates.append([])
        fit(tiny(BBB(), lr=lr, rho_lr_factor=5.0, lr_schedule=schedule), epochs=3, callbacks=callbacks)
    assert rates[0] == [pytest.approx(groups) for groups in rates[1]]
    assert all(fast == pytest.approx(5 * slow) for slow, fast in rates[1])


def test_the_rate_that_lightnings_finder_finds_trains_under_every_schedule():
    rates = {}

    class Rates(Callback):
        def on_train_epoch_start(self, trainer, model):
            rates.setdefault(schedule, []).append([group["lr"] for group in trainer.optimizers[0].param_groups])

    for schedule in (None, LinearDecay(start=10, end=20)):
        model = tiny(BBB(), lr=0.001, rho_lr_factor=5.0, lr_schedule=schedule)
        finder = LearningRateFinder(num_training_steps=30, early_stop_threshold=None, max_lr=0.5)
        fit(model, digits(batch_size=20), callbacks=[finder, Rates()])
        assert model.lr != 0.001
        assert rates[schedule][-1] == pytest.approx([model.lr, 5 * model.lr])


def test_a_rate_that_was_found_is_not_scaled_again_when_the_run_goes_on(tmp_path):
    rates = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer, model):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    for epochs, path in ((1, None), (3, tmp_path / "a.ckpt")):
        model = tiny(BBB(), lr=0.001, lr_schedule=LinearDecay(start=10, end=20))
        model.lr = 0.01
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        trainer = Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[Rates()], **quiet)
        trainer.fit(model, digits(), ckpt_path=path, weights_only=True if path else None)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert rates == pytest.approx([0.01] * 3)


def test_only_epsilons_beside_the_size_of_gradients_are_scaled():
    for optimizer, scaled in ((torch.optim.RMSprop, True), (torch.optim.Adadelta, False)):
        group = fit(tiny(BBB(), optimizer=optimizer)).optimizers[0].param_groups[0]
        default = optimizer([torch.nn.Parameter(torch.zeros(1))]).defaults["eps"]
        assert group["eps"] == (default / 400 if scaled else default)


def test_optimisers_for_one_group_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"^optimizer must be one of torch's for several groups of parameters: LBFGS"):
        Variational(optimizer=torch.optim.LBFGS)


def test_schedules_that_end_before_the_run_are_refused_before_it():
    schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=2)
    with pytest.raises(ValueError, match=r"^lr_schedule must last for the 5 epochs of the run, a step for each, got"):
        fit(tiny(BBB(), lr_schedule=schedule), epochs=5)
