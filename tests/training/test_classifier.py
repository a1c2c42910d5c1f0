import math
import pickle

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from bnn_lightning import (
    BBB,
    LRT,
    BayesianClassifier,
    HierarchicalA,
    LeNet,
    MCDropout,
    ModuleWrapper,
    Sparse,
    kl,
    sampling,
)
from bnn_lightning.data import MNIST5k
from bnn_lightning.inference.kl_weights import Blundell, LinearWarmup
from bnn_lightning.inference.learning_rates import LinearDecay, Plateau
from bnn_lightning.reporting.tensorboard import hyper_parameters
from bnn_lightning.training.callbacks import CollapseGuard, FiniteGuard, TrainingStoppedError
from bnn_lightning.training.checkpoints import KEY, CheckpointError, check_format, epochs_done, read_checkpoint
from bnn_lightning.training.progress import TrainingSummary
from bnn_lightning.training.saving import Checkpoints


def digits(**settings):
    return MNIST5k(image_size=32, train_subset=500, **settings)


def fit(model, data=None, epochs=1, **settings):
    torch.manual_seed(0)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", num_sanity_val_steps=0, **quiet | settings)
    trainer.fit(model, data or digits())
    return trainer


def tiny(method=None, **settings):
    torch.manual_seed(0)
    network = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
    return BayesianClassifier(network, method, **settings)


def test_learns_and_logs_everything():
    model = tiny(LRT(), lr=0.02, kl_weight=LinearWarmup(length=3), lr_schedule=LinearDecay())
    metrics = {
        name: value.item() for name, value in fit(model, digits(batch_size=50), epochs=6).callback_metrics.items()
    }
    for stage in ("train", "val"):
        for name in ("loss", "nll", "accuracy", "kl", "kl_per_n", "kl_weight", "elbo_per_n"):
            assert math.isfinite(metrics[f"{stage}/{name}"]), name
    assert metrics["lr"] == pytest.approx(0.02 / 6)  # the rate of the epoch that was trained, not of the next
    assert metrics["train/accuracy"] > 0.5  # of 0.1 by chance
    assert metrics["val/kl"] == pytest.approx(kl(model.network).item())
    assert metrics["train/elbo_per_n"] == pytest.approx(-(metrics["train/nll"] + metrics["train/kl"] / 400), rel=1e-5)
    assert metrics["val/loss"] == pytest.approx(-metrics["val/elbo_per_n"])


def test_n_is_the_training_split_actually_used():
    model = tiny(BBB())
    fit(model)
    assert model.num_train == 400 == model.summary.num_train


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and on a missing validation loader
def test_n_of_a_users_own_loader():
    data = TensorDataset(torch.randn(100, 1, 32, 32), torch.randint(0, 10, (100,)))
    for loader, expected in (
        (DataLoader(data, 20), 100),
        (DataLoader(data, 20, sampler=SubsetRandomSampler(range(60))), 60),
    ):
        model = tiny(BBB())
        trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
        trainer.fit(model, loader)
        assert model.num_train == expected


def test_loss_of_a_step_is_nll_plus_weighted_kl_over_n():
    model = tiny(BBB(), kl_weight=0.25)
    fit(model)
    x, labels = next(iter(digits_ready().train_dataloader()))
    with sampling(model, False):
        expected = nn.functional.cross_entropy(model(x), labels) + 0.25 * kl(model.network) / 400
        model.on_train_epoch_start()
        torch.testing.assert_close(model.training_step((x, labels), 0), expected)


def digits_ready():
    data = digits()
    data.setup("fit")
    return data


def test_several_training_samples_average_log_likelihoods_and_count_the_kl_once():
    model = tiny(BBB(rho_init=(-1.0, 0.1)), train_samples=3)
    fit(model)
    x, labels = next(iter(digits_ready().train_dataloader()))
    model.on_train_epoch_start()
    torch.manual_seed(5)
    loss = model.training_step((x, labels), 0)
    torch.manual_seed(5)
    nlls = torch.stack([nn.functional.cross_entropy(model(x), labels) for _ in range(3)])
    torch.testing.assert_close(loss, nlls.mean() + kl(model.network) / 400)


def test_total_and_per_datum_form_take_the_same_steps():
    # 1.5: Adam with epsilon / N undoes the division of the loss by N.
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


def test_double_precision_is_double_throughout():
    seen = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
            seen.append(outputs["loss"].dtype)

    model = tiny(LRT())
    trainer = fit(model, precision="64-true", callbacks=[Losses()])
    assert set(seen) == {torch.float64}
    trainer.test(model, digits(), verbose=False)
    assert next(iter(model.tested.values()))["log_probs"].dtype == torch.float64


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


def test_validation_is_at_weight_one_under_any_schedule():
    trainer = fit(tiny(BBB(), kl_weight=Blundell(reference_scale=True)))
    metrics = trainer.callback_metrics
    assert metrics["val/kl_weight"] == 1
    assert metrics["train/kl_weight"] == pytest.approx(1 / 2)  # two steps: shares 2/3 and 1/3, mean 1/M


@pytest.mark.parametrize(
    ("elbo_per_n", "weight", "marks"),
    [
        (-0.4, 1.0, []),
        (-2.4, 1.0, ["posterior not converged"]),
        (-0.4, 0.1, ["tempered"]),
        (-5.0, 0.0, ["tempered", "posterior not converged"]),
        (float("nan"), 1.0, ["posterior not converged"]),
        (None, 1.0, []),
    ],
)
def test_marks(elbo_per_n, weight, marks):
    # ln 10 = 2.303
    assert TrainingSummary(4, 1000, 10, 0.1, 0.9, 300.0, weight, elbo_per_n).marks == marks


def test_deterministic_twin_has_no_kl_and_one_sample():
    model = tiny(None, test_samples=25)
    metrics = fit(model).callback_metrics
    assert not any("kl" in name or "elbo" in name for name in metrics)
    assert model.test_samples == 1
    assert model.summary.elbo_per_n is None


def test_test_reports_samples_one_sample_and_mean_weights():
    model = tiny(LRT(rho_init=(-1.0, 0.1)), lr=0.02)
    data = digits()
    trainer = fit(model, data, epochs=3)
    results = trainer.test(model, data, verbose=False)[0]
    x = torch.cat([batch for batch, _ in data.test_dataloader()])
    with sampling(model, False), torch.no_grad():
        log_probs = model(x).log_softmax(-1)
    expected = (log_probs.argmax(-1) == data.test.labels).float().mean()
    assert results["test_mean_weights/accuracy"] == pytest.approx(expected.item())
    nll = -log_probs[torch.arange(1000), data.test.labels].mean().item()
    assert results["test_mean_weights/nll"] == pytest.approx(nll, rel=1e-5)
    assert results["test/nll"] < results["test_one_sample/nll"]  # Jensen


def test_checkpoint_holds_plain_values_and_restores(tmp_path):
    model = tiny(LRT())
    trainer = fit(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = read_checkpoint(tmp_path / "a.ckpt")
    assert checkpoint[KEY]["format_version"] == 1
    assert checkpoint[KEY]["data"]["class_names"] == list("0123456789")
    other = tiny(LRT())
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    assert other.summary == model.summary
    assert torch.equal(kl(other.network), kl(model.network))


class Bomb:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_files_that_are_not_our_checkpoints(tmp_path, capsys):
    path = tmp_path / "x.ckpt"
    with pytest.raises(CheckpointError, match=r"^there is no file .*x\.ckpt\.$"):
        read_checkpoint(path)
    for content in (b"", b"garbage", pickle.dumps(Bomb())):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"x\.ckpt"):
            read_checkpoint(path)
    torch.save({"state_dict": Bomb()}, path)
    with pytest.raises(CheckpointError, match="only files of tensors and plain values are read"):
        read_checkpoint(path)
    assert capsys.readouterr().out == ""
    torch.save({"state_dict": {}}, path)
    with pytest.raises(CheckpointError, match="was not written by bnn_lightning"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="has format version 99, this bnn_lightning reads version 1"):
        check_format({KEY: {"format_version": 99}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr must be a positive number, got 0.0."),
        ({"rho_lr_factor": -1.0}, "rho_lr_factor must be a positive number, got -1.0."),
        ({"test_samples": 0}, "test_samples must be 1 or more, got 0."),
        ({"loss_form": "sum"}, "loss_form must be per_datum or total, got 'sum'."),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        tiny(**settings)
    assert str(error.value) == message


def test_only_some_layers():
    model = BayesianClassifier(LeNet(), BBB(), only="fc3")
    assert torch.equal(kl(model.network), kl(model.network.fc3))
    assert isinstance(model.network.fc2, nn.Linear)


def test_network_that_returns_a_tuple():
    model = BayesianClassifier(ModuleWrapper())
    with pytest.raises(ValueError, match=r"^network must return logits, a tensor, got tuple; a ModuleWrapper"):
        model(torch.zeros(1, 1, 4, 4))


def test_from_checkpoint_needs_a_config(tmp_path):
    fit(tiny(LRT())).save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt was saved from Python and holds no config"):
        BayesianClassifier.from_checkpoint(tmp_path / "a.ckpt")


# Starting from a trained twin


def saved_twin(tmp_path):
    twin = tiny()
    trainer = fit(twin, enable_checkpointing=True, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "twin.ckpt")
    return twin, str(tmp_path / "twin.ckpt")


class Untrained(BayesianClassifier):
    def configure_optimizers(self):
        self.num_train = self._count_training_examples()
        return torch.optim.SGD(self.parameters(), lr=0.0)


def test_init_from_takes_means_sigmas_and_prior_means_of_the_twin(tmp_path):
    twin, path = saved_twin(tmp_path)
    network = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
    model = Untrained(network, LRT(moped_delta=0.2), init_from=path)
    fit(model)
    weight, trained = model.network[2].weight, twin.network[2].weight
    assert torch.equal(weight.mu, trained)
    torch.testing.assert_close(weight.sigma, (0.2 * trained.abs()).clamp_min(1e-6))
    assert torch.equal(weight.prior_mu, trained)
    x = torch.randn(3, 1, 32, 32)
    with sampling(model, False):
        torch.testing.assert_close(model(x), twin(x))


def test_init_from_can_take_the_means_alone_and_goes_into_any_method(tmp_path):
    twin, path = saved_twin(tmp_path)
    for method in (BBB(moped_delta=0), Sparse(), None):
        network = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
        model = Untrained(network, method, init_from=path)
        fit(model)
        weight = model.network[2].weight
        assert torch.equal(weight if method is None else weight.mu, twin.network[2].weight)
    assert model.network[2].bias is not None
    model = Untrained(
        nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10)), BBB(moped_delta=0), init_from=path
    )
    fit(model)
    assert model.network[2].weight.prior_mu.item() == 0
    assert model.network[2].weight.rho.mean().item() == pytest.approx(-5, abs=5 * 0.1 / 640**0.5)


def test_init_from_another_network_is_refused(tmp_path):
    _, path = saved_twin(tmp_path)
    model = BayesianClassifier(LeNet(), LRT(), init_from=path)
    with pytest.raises(ValueError, match=r"^init_from must be a checkpoint of the deterministic twin, got .*: 2\.bias"):
        fit(model)


# Dropout with a fixed rate has no KL


def test_a_method_without_a_kl_reports_none():
    model = tiny(MCDropout(p=0.2))
    metrics = fit(model).callback_metrics
    assert "train/kl" not in metrics
    assert "val/elbo_per_n" not in metrics
    assert metrics["train/loss"] == metrics["train/nll"]
    assert model.summary.elbo_per_n is None
    assert model.summary.marks == []
    assert model.test_samples == 25  # but its samples differ


def test_an_improper_prior_and_sparsity_are_in_the_summary():
    model = tiny(Sparse())
    metrics = fit(model).callback_metrics
    assert model.summary.sparsity == pytest.approx(metrics["train/sparsity"].item())
    assert "improper prior: elbo/N is no bound" in model.summary.marks
    assert tiny(LRT()).removes_weights is False


def test_rho_lr_factor_is_for_every_kind_of_spread():
    for method in (LRT(), Sparse(), Sparse(parametrisation="log_sigma"), HierarchicalA()):
        model = tiny(method, rho_lr_factor=7.0, lr=1e-3)
        trainer = fit(model)
        rates = {id(p): group["lr"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
        for name, parameter in model.network.named_parameters():
            fast = name.split(".")[-1] in ("rho", "log_sigma2", "log_sigma", "log_alpha")
            assert rates[id(parameter)] == pytest.approx(7e-3 if fast else 1e-3)


# Guards


def summary(**changes):
    values = {
        "epoch": 1,
        "num_train": 100,
        "num_classes": 10,
        "nll": 0.5,
        "accuracy": 0.9,
        "kl": 10.0,
        "kl_weight": 1.0,
    }
    return TrainingSummary(**values | {"elbo_per_n": -0.6} | changes)


@pytest.mark.parametrize(
    ("changes", "flagged"),
    [
        ({"accuracy": 0.19}, True),
        ({"accuracy": 0.21}, False),
        ({"accuracy": 0.19, "epoch": 0}, False),  # the first epoch says nothing yet
        ({"accuracy": math.nan}, True),
        ({"num_classes": 2, "accuracy": 0.7}, True),  # twice guessing would be 1
        ({"num_classes": 2, "accuracy": 0.8}, False),
    ],
)
def test_not_learning(changes, flagged):
    assert ("not learning" in summary(**changes).marks) == flagged


@pytest.mark.parametrize("sparsity", [None, 0.5, 0.995])
@pytest.mark.parametrize("nll", [0.5, 2.2])
def test_collapsed_only_when_sparse_and_guessing(nll, sparsity):
    assert summary(nll=nll, sparsity=sparsity).has_collapsed == (nll == 2.2 and sparsity == 0.995)


class Hundred(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(1024, 100), nn.ReLU(), nn.Linear(100, 10))


@pytest.mark.parametrize(("weight", "collapses"), [(1.0, True), (LinearWarmup(start=5, length=15), False)])
def test_collapse_guard_fires_without_the_ramp(weight, collapses):
    # T4.9: with the full KL from the first step the weights are erased before they have learnt anything.
    torch.manual_seed(0)
    model = BayesianClassifier(Hundred(), Sparse(), kl_weight=weight, lr=1e-3)
    data = MNIST5k(image_size=32, train_subset=1000, batch_size=50)
    if collapses:
        with pytest.raises(TrainingStoppedError, match=r"^the weights have collapsed in epoch \d+: .*LinearWarmup"):
            fit(model, data, epochs=8, callbacks=[CollapseGuard()])
    else:
        fit(model, data, epochs=8, callbacks=[CollapseGuard()])
        assert model.summary.accuracy > 0.5


def test_non_finite_loss_stops_the_run_and_names_the_tensor():
    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x if self.calls < 3 else x / 0

    network = nn.Sequential(nn.MaxPool2d(4), Explodes(), nn.Flatten(), nn.Linear(64, 10))
    model = BayesianClassifier(network, LRT())
    with pytest.raises(
        TrainingStoppedError, match=r"^the loss is not finite in epoch 1, step 3: the output of 1 is not"
    ):
        fit(model, digits(batch_size=50), callbacks=[FiniteGuard()])
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())  # before the step was taken


def test_a_gradient_that_is_not_finite_is_named_by_its_parameter():
    model = tiny(LRT())
    model.network[2].weight.rho.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TrainingStoppedError, match=r"step 2: 2\.weight\.rho is not finite, from its gradient"):
        fit(model, digits(batch_size=50), callbacks=[FiniteGuard()])


def test_the_end_of_an_epoch_is_looked_at_before_its_checkpoint_is_written(tmp_path):
    model = tiny(LRT())
    model.network[2].weight.rho.register_hook(lambda gradient: gradient * (math.nan if model.current_epoch else 1))
    guards = [Checkpoints(tmp_path, model.kl_weight), FiniteGuard()]
    with pytest.raises(TrainingStoppedError, match="in epoch 2, step 1"):
        fit(model, digits(batch_size=500), epochs=3, callbacks=guards, enable_checkpointing=True)
    state = read_checkpoint(tmp_path / "last.ckpt")
    assert epochs_done(state) == 1
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


def test_images_that_are_not_finite_are_named():
    data = digits_ready()
    data.std = [0.0]
    model = tiny(LRT())
    with pytest.raises(TrainingStoppedError, match="step 1: the images are not finite"):
        fit(model, data, callbacks=[FiniteGuard()])


def test_hyper_parameters_are_what_trains_a_network():
    config = {
        "seed_everything": 3,
        "model": {
            "network": {"class_path": "bnn_lightning.networks.study_nets.LeNet", "init_args": {"num_classes": 10}},
            "method": {"class_path": "LRT", "init_args": {"prior_sigma": 0.1, "rho_init": [-5.0, 0.1], "prior": None}},
            "lr": 0.001,
            "draws": "mean",
        },
        "data": {"class_path": "MNIST", "init_args": {"root": "somewhere", "batch_size": 256, "seed": 0}},
        "trainer": {"max_epochs": 20, "precision": None},
    }
    assert hyper_parameters(config) == {
        "seed": 3,
        "network": "LeNet",
        "network.num_classes": 10,
        "method": "LRT",
        "method.prior_sigma": 0.1,
        "method.rho_init": "[-5.0, 0.1]",
        "lr": 0.001,
        "data": "MNIST",
        "batch_size": 256,
        "data seed": 0,
        "epochs": 20,
    }


def test_compile_changes_the_noise_and_nothing_else(tmp_path):
    # One epoch with and without: the same names in the checkpoint, and twice the same numbers from the same seed.
    states = []
    for compiled in (True, True, False):
        model = tiny(LRT(), compile=compiled)
        fit(model)
        states.append(model.state_dict())
    assert states[0].keys() == states[2].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


def test_a_deterministic_network_has_nothing_to_compile():
    with pytest.warns(UserWarning, match="^compile has nothing to compile in a deterministic network"):
        tiny(compile=True)


class SharedNorm(nn.Module):
    """Runs one batch norm twice; in a forward of its own, where no look at the modules could see it."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x):
        x = self.norm(self.fc1(nn.functional.max_pool2d(x, 4).flatten(1)).relu())
        return self.fc3(self.norm(self.fc2(x)).relu())


@pytest.mark.parametrize("method", [None, LRT()])
def test_one_batch_norm_for_two_layers_is_refused(method):
    with pytest.raises(
        ValueError,
        match=r"^network must run each module with running statistics once in a forward pass, but runs norm "
        r"\(BatchNorm1d\) again: .* Give each place a module of its own, or set allow_shared_statistics\.$",
    ):
        fit(BayesianClassifier(SharedNorm(), method))


def test_a_shared_batch_norm_that_is_let_through_costs_accuracy_in_evaluation():
    torch.manual_seed(0)
    model = BayesianClassifier(SharedNorm(), lr=0.01, allow_shared_statistics=True)
    trainer = fit(model, digits(batch_size=50), epochs=5)
    in_training, in_evaluation = (trainer.callback_metrics[f"{stage}/accuracy"].item() for stage in ("train", "val"))
    # 400 and 50 images: five standard errors of the difference are 0.36 at most
    assert in_training - in_evaluation > 5 * (0.25 / 400 + 0.25 / 50) ** 0.5


def test_modules_that_run_once_pass_however_many_samples_are_drawn():
    class OwnNorms(SharedNorm):
        def __init__(self):
            super().__init__()
            self.other = nn.BatchNorm1d(16)

        def forward(self, x):
            x = self.norm(self.fc1(nn.functional.max_pool2d(x, 4).flatten(1)).relu())
            return self.fc3(self.other(self.fc2(x)).relu())

    model = BayesianClassifier(OwnNorms(), BBB(), train_samples=3)
    fit(model)
    assert model._watched == []
    assert all(not module._forward_pre_hooks for module in model.modules())  # nothing looks after the first step


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
