"""``bnn ensemble``: several checkpoints become one."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from bnn_lightning import BayesianModule, Sampler
from bnn_lightning.checkpoints.record import KEY, read_checkpoint
from bnn_lightning.cli import main
from tests.helpers import FOR_NUMBERS, LENET, SMALL, printed

pytestmark = FOR_NUMBERS


@pytest.mark.slow
def test_an_ensemble_of_checkpoints_is_tested_and_predicts_like_one(run, capsys):
    config = ["--config", LENET, *SMALL, "--trainer.max_epochs", "1"]
    assert main(["fit", *config, "--seed_everything", "1"]) == 0
    second = "checkpoints/lenet_lrt_mnist5k/version_1/best.ckpt"
    words = ["--model.sampling.test_samples", "5", "--model.sampling.val_samples", "3"]
    assert main(["ensemble", "--ckpt_path", str(run / "best.ckpt"), "--members", f"[{second}]", *words]) == 0
    capsys.readouterr()
    joined = str(run / "ensemble.ckpt")
    assert main(["ensemble", "--ckpt_path", str(run / "best.ckpt"), "--members", f"[{second}]"]) == 2
    assert f"--output {joined} is there already; name another file." in printed(capsys)
    assert main(["test", "--ckpt_path", joined]) == 0  # with 5 samples, which are 3 of each network
    text = printed(capsys)
    assert "6 weight draws, 2 networks" in text
    assert "calibrated with" not in text
    results = json.loads(Path("lightning_logs/lenet_lrt_mnist5k/version_0/test_mnist5k_ensemble.json").read_text())
    assert results["temperature"] is not None
    elbos = [read_checkpoint(path)[KEY]["training"]["elbo_per_n"] for path in (run / "best.ckpt", second)]
    assert results["training"]["elbo_per_n"] == pytest.approx(sum(elbos) / 2)
    model = BayesianModule.from_checkpoint(joined)
    x = torch.randn(4, 1, 32, 32)
    logits = model.sampler(6)(x)
    first = BayesianModule.from_checkpoint(run / "best.ckpt")
    torch.testing.assert_close(logits[:3], Sampler(first.network, 3)(x), rtol=1e-4, atol=1e-5)
    model.network.members[0].load_state_dict(BayesianModule.from_checkpoint(second).network.state_dict())
    torch.testing.assert_close(model.sampler(2, "mean")(x)[0], model.sampler(2, "mean")(x)[1])
    assert main(["validate", "--ckpt_path", joined]) == 0
    assert "4 local draws" in printed(capsys)
    assert main(["predict", "--ckpt_path", joined]) == 0
    twin = second.replace("best", "twin")
    shutil.copy(second, twin)
    assert main(["ensemble", "--ckpt_path", second, "--members", f"[{twin}]", "--output", "new.ckpt"]) == 2
    assert f"--members {twin} has the weights of another one; networks of an ensemble come from" in printed(capsys)
    assert main(["ensemble", "--ckpt_path", second, "--members", f"[{joined}]", "--output", "new.ckpt"]) == 2
    assert f"--members {joined} is an ensemble; name the checkpoints of its networks." in printed(capsys)
    other = ["--model.method.prior_sigma", "0.3", "--name", "other"]
    assert main(["fit", *config, *other]) == 0
    words = ["ensemble", "--ckpt_path", joined.replace("ensemble", "best"), "--members"]
    assert main([*words, "[checkpoints/other/version_0/best.ckpt]", "--output", "new.ckpt"]) == 2
    assert "differs from --ckpt_path in --model.method.prior_sigma (0.1 and 0.3); only the seed may." in printed(capsys)
    assert main(words[:-1]) == 2
    assert printed(capsys) == "bnn: error: --members is missing; bnn ensemble --help says what it is.\n"
    assert main([*words, "[nowhere.ckpt]", "--output", "new.ckpt"]) == 2
    assert "there is no file nowhere.ckpt." in printed(capsys)
    assert main(["fit", "--ckpt_path", joined, "--trainer.max_epochs", "3"]) == 2
    assert "holds no training state" in printed(capsys)
    assert main(["prune", "--ckpt_path", joined]) == 2
    assert "--ckpt_path is of an ensemble; name the checkpoint of one of its networks." in printed(capsys)
    assert main(["fit", *config, "--model.members", "2", "--name", "both"]) == 2
    assert "--model.members must be 1 to train or call a network, got 2" in printed(capsys)
