"""What the module trains, logs, tests and reports."""

import math

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from bnn_lightning import BBB, LRT, BayesianModule, LeNet, MCDropout, ModuleWrapper, Sparse, kl, sampling
from bnn_lightning.inference.kl_weights import Blundell, LinearWarmup
from bnn_lightning.inference.learning_rates import LinearDecay
from tests.training.helpers import digits, fit, loaded_digits, tiny


def test_training_learns_and_logs_everything():
    model = tiny(LRT(), lr=0.02, kl_weight=LinearWarmup(length=3), lr_schedule=LinearDecay())
    metrics = {
        name: value.item() for name, value in fit(model, digits(batch_size=50), epochs=6).callback_metrics.items()
    }
    for stage in ("train", "val"):
        for name in ("loss", "nll", "accuracy", "kl", "kl_per_n", "elbo_per_n"):
            assert math.isfinite(metrics[f"{stage}/{name}"]), name
        assert metrics[f"{stage}/loss"] == pytest.approx(-metrics[f"{stage}/elbo_per_n"])
    assert metrics["lr"] == pytest.approx(0.02 / 6)  # the rate of the epoch that was trained, not of the next
    assert metrics["train/accuracy"] > 0.5  # of 0.1 by chance
    assert metrics["val/kl"] == pytest.approx(kl(model.network).item())
    assert metrics["train/elbo_per_n"] == pytest.approx(-(metrics["train/nll"] + metrics["train/kl"] / 400), rel=1e-5)
    assert metrics["train/kl_weight"] == 1  # of an epoch after the warm-up
    assert metrics["train/weighted_loss"] == pytest.approx(metrics["train/loss"])
    assert not {"val/kl_weight", "val/weighted_loss"} & set(metrics)


def test_n_is_the_training_split_actually_used():
    model = tiny(BBB())
    fit(model)
    assert model.num_train == 400 == model.summary.num_train


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and on a missing validation loader
def test_n_is_what_a_users_own_loader_serves():
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
    x, labels = next(iter(loaded_digits().train_dataloader()))
    with sampling(model, False):
        expected = nn.functional.cross_entropy(model(x), labels) + 0.25 * kl(model.network) / 400
        model.on_train_epoch_start()
        torch.testing.assert_close(model.training_step((x, labels), 0), expected)


def test_several_training_samples_average_log_likelihoods_and_count_the_kl_once():
    model = tiny(BBB(rho_init=(-1.0, 0.1)), samples=3)
    fit(model)
    x, labels = next(iter(loaded_digits().train_dataloader()))
    model.on_train_epoch_start()
    torch.manual_seed(5)
    loss = model.training_step((x, labels), 0)
    torch.manual_seed(5)
    nlls = torch.stack([nn.functional.cross_entropy(model(x), labels) for _ in range(3)])
    torch.testing.assert_close(loss, nlls.mean() + kl(model.network) / 400)


def test_double_precision_is_double_throughout():
    seen = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
            seen.append(outputs["loss"].dtype)

    model = tiny(LRT())
    trainer = fit(model, precision="64-true", callbacks=[Losses()])
    assert set(seen) == {torch.float64}
    trainer.test(model, digits(), verbose=False)
    assert next(iter(model.tested.values())).summary["log_probs"].dtype == torch.float64


def test_validation_is_at_weight_one_under_any_schedule():
    trainer = fit(tiny(BBB(), kl_weight=Blundell(reference_scale=True)))
    metrics = trainer.callback_metrics
    assert metrics["val/loss"] == pytest.approx(-metrics["val/elbo_per_n"])
    assert metrics["train/kl_weight"] == pytest.approx(1 / 2)  # two steps: shares 2/3 and 1/3, mean 1/M
    assert metrics["train/loss"] - metrics["train/weighted_loss"] == pytest.approx(metrics["train/kl_per_n"] / 2)


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr must be a positive number, got 0.0."),
        ({"rho_lr_factor": -1.0}, "rho_lr_factor must be a positive number, got -1.0."),
        ({"test_samples": 0}, "test_samples must be 1 or more, got 0."),
        ({"loss_form": "sum"}, "loss_form must be one of per_datum, total, got 'sum'."),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        tiny(**settings)
    assert str(error.value) == message


def test_the_kl_is_of_the_layers_that_are_random():
    model = BayesianModule(LeNet(), BBB(), only="fc3")
    assert torch.equal(kl(model.network), kl(model.network.fc3))
    assert isinstance(model.network.fc2, nn.Linear)


def test_a_network_that_returns_a_tuple_is_refused():
    model = BayesianModule(ModuleWrapper())
    with pytest.raises(ValueError, match=r"^network must return its outputs as one tensor, got tuple; wrap it"):
        model(torch.zeros(1, 1, 4, 4))


def test_a_method_without_a_kl_reports_none():
    model = tiny(MCDropout(p=0.2))
    metrics = fit(model).callback_metrics
    assert "train/kl" not in metrics
    assert "val/elbo_per_n" not in metrics
    assert metrics["train/loss"] == metrics["train/nll"]
    assert model.summary.elbo_per_n is None
    assert model.summary.caveats == []
    assert model.test_samples == 25  # but its samples differ


def test_an_improper_prior_and_sparsity_are_in_the_summary():
    model = tiny(Sparse())
    metrics = fit(model).callback_metrics
    assert model.summary.sparsity == pytest.approx(metrics["train/sparsity"].item())
    assert "elbo/N is no bound" in model.summary.caveats
    assert tiny(LRT()).removes_weights is False


@pytest.mark.slow
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


class TwoSets(LightningDataModule):
    """Digits to train on, and the same few to validate on by two loaders."""

    def __init__(self):
        super().__init__()
        self.digits = loaded_digits()

    def train_dataloader(self):
        return self.digits.train_dataloader()

    def val_dataloader(self):
        return [self.digits.val_dataloader(), self.digits.val_dataloader()]


def test_the_images_of_several_validation_loaders_are_one_set():
    models = [tiny(), tiny()]
    fit(models[0], digits())
    fit(models[1], TwoSets())
    assert models[1].val_metrics.nll.count == 2 * models[0].val_metrics.nll.count
    assert models[1].validation["val/accuracy"] == pytest.approx(models[0].validation["val/accuracy"])
