"""Numbers from the command line: a tiny table and rotated digits, trained, tested, predicted, put together, resumed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from lightning.pytorch import Callback

from bnn_lightning import Predictor
from bnn_lightning.checkpoints.record import KEY, CheckpointError, read_checkpoint
from bnn_lightning.cli import main
from tests.helpers import ON_THE_COMMAND_LINE, ROOT, printed, table

pytestmark = ON_THE_COMMAND_LINE
SCHEMA = json.loads((ROOT / "bnn_lightning" / "reporting" / "results.schema.json").read_text())
UCI = str(ROOT / "configs" / "mlp_uci_lrt.yaml")
TABLE = ["--data.path", "force.csv", "--data.target", "force", "--data.batch_size", "16", "--data.val_split", "0.5"]
QUICK = [
    "--trainer.max_epochs",
    "30",
    "--trainer.check_val_every_n_epoch",
    "10",
    "--model.inference.rho_lr_factor",
    "3",
]
LAST = "checkpoints/a/version_0/last.ckpt"
LOGS = Path("lightning_logs/a/version_0")


def write_tables():
    """A force in newtons around 5,000 of two numbers and a material, with noise of 50; and inputs far away."""
    rng = np.random.default_rng(0)
    for name, count, shift in (("force", 400, 0), ("far", 50, 40)):
        rows = ["length,material,width,force,extra"]
        for _ in range(count):
            length, width, steel = rng.normal() + shift, rng.normal() - shift, rng.random() < 0.5
            force = 5000 + 300 * length - 200 * width * length + 400 * steel + 50 * rng.normal()
            rows.append(f"{length:.4f},{'steel' if steel else 'wood'},{width:.4f},{force:.2f},{2 * length:.4f}")
        Path(f"{name}.csv").write_text("\n".join(rows))


def fit(*words, config=UCI):
    return main(["fit", "--config", config, "--name", "a", *TABLE, *QUICK, *words])


@pytest.mark.parametrize(
    ("words", "ways"),
    [
        ([], ["samples", "one_sample", "mean_weights"]),
        (["--model.likelihood.heteroscedastic", "true", "--model.likelihood.beta", "0.5"], None),
        (["--model.likelihood", "StudentT", "--model.method", "null"], ["samples"]),
    ],
    ids=["gaussian", "beta-nll", "student-t"],
)
def test_a_table_is_trained_tested_and_predicted(words, ways, capsys):
    write_tables()
    assert fit(*words, "--data.ood", "[far.csv]") == 0
    assert main(["test", "--ckpt_path", LAST]) == 0
    text = printed(capsys)
    results = json.loads((LOGS / "test_force_last.json").read_text())
    Draft202012Validator(SCHEMA).validate(results)
    if ways:
        assert list(results["predictions"]) == ways
    samples = results["predictions"]["samples"]
    # In newtons: the noise has a standard deviation of 50, the force one of 460.
    assert 40 < samples["rmse"] < 150
    assert samples["width_90"] > 100
    assert samples["r2"] > 0.85
    assert samples["nll"] == pytest.approx(np.log(samples["rmse"]) + 1.42, abs=0.8)
    assert 0.75 < samples["coverage_90"] <= 1
    assert results["errors"]["samples"]["rmse"]["images"] > 0
    assert len(results["std_scale"]) == 1
    assert ("beta-NLL 0.5: loss is no ELBO" in results["caveats"]) == ("0.5" in words)
    if "null" not in words:
        assert results["ood"]["far"]["epistemic_std"]["auroc"]["value"] > 0.95
    for figure in ("predicted", "residuals", "calibration", "intervals", "ood"):
        assert (LOGS / f"test_force_last_{figure}.png").is_file()
    assert "force, 40 examples:" in text
    assert "conformal coverage of 90 %" in text
    assert {"val/skill", "train/skill", "val/nll"} <= set(table(LOGS / "metrics.csv")[0])

    words = ["--target_risk", "0.2", "--target_error", "200", "--alpha", "0.1"]
    assert main(["predict", "--ckpt_path", LAST, *words]) == 0
    assert "Accepted is what has a predictive standard deviation of" in printed(capsys)
    rows = table(LOGS / "predictions.csv")
    truth = {
        f"row {n}": float(line.split(",")[3])
        for n, line in enumerate(Path("force.csv").read_text().split(), 1)
        if n > 1
    }
    errors = [abs(float(row["mean"]) - truth[row["file"]]) for row in rows]
    assert len(rows) == 40
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(samples["rmse"], rel=1e-3)
    inside = [float(row["conformal_low"]) <= truth[row["file"]] <= float(row["conformal_high"]) for row in rows]
    assert np.mean(inside) == pytest.approx(samples["conformal_coverage_90"])
    assert {row["decision"] for row in rows} <= {"accept", "abstain"}
    # Another table needs no target.
    lines = [",".join(line.split(",")[:3]) for line in Path("far.csv").read_text().split()]
    Path("new.csv").write_text("\n".join(line + (",extra" if n == 0 else ",1") for n, line in enumerate(lines)))
    assert main(["predict", "--ckpt_path", LAST, "--data.path", "new.csv", *words]) == 0
    assert len(table(LOGS / "predictions_1.csv")) == 50


def test_an_ensemble_of_tables_and_several_targets(capsys):
    write_tables()
    words = ["--data.target", "[force, extra]", "--trainer.max_epochs", "20"]
    for seed in ("1", "2"):
        assert fit(*words, "--seed_everything", seed) == 0
    capsys.readouterr()
    members = "[checkpoints/a/version_1/last.ckpt]"
    assert main(["ensemble", "--ckpt_path", LAST, "--members", members]) == 0
    assert main(["test", "--ckpt_path", "checkpoints/a/version_0/ensemble.ckpt"]) == 0
    text = printed(capsys)
    assert "100 weight draws, 2 networks" in text
    assert "Targets, each in its own units:" in text
    results = json.loads((LOGS / "test_force_ensemble.json").read_text())
    Draft202012Validator(SCHEMA).validate(results)
    assert [row["name"] for row in results["per_target"]] == ["force", "extra"]
    assert results["per_target"][1]["rmse"] < 1 < results["per_target"][0]["rmse"]
    state = torch.load("checkpoints/a/version_0/ensemble.ckpt", weights_only=True)["state_dict"]
    sigmas = [state[f"network.members.{member}.learnt_noise.constants"] for member in range(2)]
    assert not sigmas[0].equal(sigmas[1])
    assert main(["predict", "--ckpt_path", "checkpoints/a/version_0/ensemble.ckpt"]) == 0
    assert "extra epistemic_std" in table(LOGS / "predictions.csv")[0]


def test_an_ensemble_is_of_networks_that_were_trained_on_the_same_table(capsys):
    for seed, row in (("1", ""), ("2", "\n0,steel,0,9000,0")):  # which moves the mean of the target, and the hold-out
        write_tables()
        Path("force.csv").write_text(Path("force.csv").read_text() + row)
        assert fit("--trainer.max_epochs", "10", "--seed_everything", seed) == 0
    capsys.readouterr()
    other = "checkpoints/a/version_1/last.ckpt"
    assert main(["ensemble", "--ckpt_path", other, "--members", f"[{LAST}]"]) == 2
    assert f"--members {LAST} was trained when the data of --ckpt_path held other examples" in printed(capsys)
    with pytest.raises(CheckpointError, match=f"when the data of {other} held other examples; train both on the same."):
        Predictor.load([other, LAST])


def test_a_run_goes_on_with_the_same_bits():
    write_tables()
    words = ["--trainer.max_epochs", "6", "--trainer.callbacks", "tests.cli.test_regression.StopsWhereAsked"]
    assert fit(*words) == 0
    whole = torch.load(LAST, weights_only=True)
    Path("stop").touch()
    assert fit(*words) != 0
    Path("stop").unlink()
    resumed = "checkpoints/a/version_1/last.ckpt"
    assert torch.load(resumed, weights_only=True)["epoch"] < whole["epoch"]
    assert main(["fit", "--ckpt_path", resumed]) == 0
    again = torch.load(resumed, weights_only=True)
    for name, value in whole["state_dict"].items():
        assert value.equal(again["state_dict"][name]), name
    ours, theirs = (each["bnn_lightning"]["calibration"]["weights"] for each in (whole, again))
    for name, value in ours.items():
        assert value.equal(theirs[name])


class StopsWhereAsked(Callback):
    """Raises in the fourth epoch while there is a file called stop, as a process that is killed would end there."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 3 and Path("stop").exists():
            raise RuntimeError("stopped")


def test_rotated_digits_are_trained_tested_and_told_from_letters(capsys):
    config = str(ROOT / "configs" / "lenet_angle_lrt.yaml")
    words = [
        "--data.train_subset",
        "1500",
        "--trainer.max_epochs",
        "6",
        "--name",
        "a",
        "--data.ood",
        "[RenderedLetters]",
    ]
    assert main(["fit", "--config", config, *words, "--model.inference.kl_weight", "0.05"]) == 0
    assert main(["test", "--ckpt_path", LAST, "--report"]) == 0
    page = (LOGS / "report.html").read_text()
    for figure in ("with its 90 % interval", "Share of true values", "standard normal density", "RenderedLetters"):
        assert figure in page
    results = json.loads((LOGS / "test_rotateddigits_last.json").read_text())
    Draft202012Validator(SCHEMA).validate(results)
    samples = results["predictions"]["samples"]
    assert samples["rmse"] < 22  # degrees, of 26 by guessing
    assert 0.8 < samples["conformal_coverage_90"] < 0.97
    assert set(results["ood"]["RenderedLetters"]) == {"epistemic_std", "predictive_std"}
    assert "tempered" in results["caveats"]
    assert main(["validate", "--ckpt_path", LAST]) == 0
    assert "skill" in printed(capsys)
    assert main(["predict", "--ckpt_path", LAST, "--data", "RenderedLetters"]) == 0
    assert "mean" in table(LOGS / "predictions.csv")[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--model.likelihood", "Categorical"],
            "--model.likelihood must be Gaussian or StudentT for force, whose labels are numbers, got Categorical.",
        ),
        (
            ["--data", "MNIST5k", "--model.network", "LeNet"],
            "--model.likelihood must be Categorical for MNIST5k, whose labels are classes, got Gaussian.",
        ),
        (["--data.target", "weight"], "--data.target must be among the columns length, material, width, force, extra"),
        (["--data.path", "none.csv"], "--data.path must be a table, got none.csv, which is not there."),
        (
            ["--model.likelihood.beta", "0.5"],
            "--model.likelihood.beta must be 0 unless heteroscedastic is true, got 0.5.",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(words, sentence, capsys):
    write_tables()
    if "--data" in words:
        assert main(["fit", "--model.likelihood", "Gaussian", *words]) == 2
    else:
        assert fit(*words) == 2
    text = printed(capsys)
    assert sentence in text
    assert "Traceback" not in text


def test_what_is_for_classes_alone_says_so(capsys):
    write_tables()
    assert fit("--trainer.max_epochs", "1") == 0
    capsys.readouterr()
    assert main(["prune", "--ckpt_path", LAST]) == 2
    assert "is of a network under Gaussian; what removing weights costs is known for classes." in printed(capsys)
    assert main(["export", "--ckpt_path", LAST]) == 2
    without_what = "--what is missing: smaller networks are measured on classes, which Gaussian lacks; --what "
    assert f"{without_what}moments, mean or samples:25 exports the predictive." in printed(capsys)
    assert main(["predict", "--ckpt_path", LAST, "--target_error", "-1"]) == 2
    assert "--target_error must be above 0, in the units of the target, got -1.0." in printed(capsys)
    assert main(["test", "--ckpt_path", LAST, "--data.seed", "3"]) == 2
    assert "--data.seed must be the checkpoint's, 0, got 3; on another split the test set has" in printed(capsys)
    assert main(["test", "--ckpt_path", LAST, "--data", "MNIST5k"]) == 2
    assert "data must have no classes, as the checkpoint's force" in printed(capsys)


def test_laplace_forms_the_same_posterior_of_numbers_at_the_end_of_fit_and_afterwards(capsys):
    write_tables()
    words = ["fit", "--config", UCI.replace("_lrt", "_deterministic"), *TABLE, *QUICK[:4]]
    adam = ["--model.inference.lr", "0.01", "--model.inference.lr_schedule", "LinearDecay"]
    assert main([*words, "--name", "a"]) == 0
    assert main(["laplace", "--ckpt_path", LAST, "--output", "after.ckpt"]) == 0
    text = printed(capsys)
    assert main([*words, "--model.inference", "Laplace", *adam, "--name", "b"]) == 0
    at_end, after = read_checkpoint(LAST.replace("/a/", "/b/")), read_checkpoint("after.ckpt")
    torch.testing.assert_close(dict(after["state_dict"]), dict(at_end["state_dict"]))
    torch.testing.assert_close(after[KEY]["calibration"], at_end[KEY]["calibration"])
    before, later = map(float, re.search(r"Validation NLL: (\S+) before, (\S+) after", text).groups())
    assert 0 < later - before < 0.2  # in nats, of targets whose standard deviation is 460
