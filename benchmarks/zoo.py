"""The zoo sweep: one small member of each family of torchvision's classifiers under five methods.

``python benchmarks/zoo.py`` prints the table of docs/measurements.md; with ``--commands`` bnn fit, test and predict run
for every cell too. tests/networks/test_zoo.py runs the same checks.
"""

import contextlib
import copy
import io
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from bnn_lightning import (
    BBB,
    LRT,
    Flipout,
    MCDropout,
    Method,
    Point,
    VariationalB,
    bayesianize,
    describe,
    kl,
    load_plain_state_dict,
    random_tensors,
    sample_logits,
    sampling,
    to_plain,
)
from bnn_lightning.cli import main

METHODS: dict[str, Method] = {
    "BBB": BBB(),
    "LRT": LRT(),
    "Flipout": Flipout(),
    "MCDropout": MCDropout(p=0.1),
    "VariationalB": VariationalB(),
}
CLASSES = 3


@dataclass(frozen=True)
class Member:
    """A member of the zoo.

    Args:
        size: side of the images, the smallest that it takes, or nearly.
        settings: of its function.
        left_out: pattern of layers whose weights it reads itself instead of calling them.
    """

    size: int = 32
    settings: dict[str, object] = field(default_factory=dict)
    left_out: str = ""

    @property
    def only(self) -> list[str]:
        return ["*", f"!{self.left_out}"] if self.left_out else ["*"]


ZOO = {
    "alexnet": Member(64),
    "vgg11_bn": Member(),
    "resnet18": Member(),
    "resnext50_32x4d": Member(),
    "wide_resnet50_2": Member(),
    "densenet121": Member(),
    "squeezenet1_1": Member(),
    "googlenet": Member(64, {"aux_logits": False, "init_weights": False}),
    "inception_v3": Member(80, {"aux_logits": False, "init_weights": False}),
    "mobilenet_v2": Member(),
    "mobilenet_v3_small": Member(),
    "mnasnet0_5": Member(),
    "shufflenet_v2_x0_5": Member(),
    "efficientnet_b0": Member(),
    "efficientnet_v2_s": Member(),
    "regnet_y_400mf": Member(),
    "convnext_tiny": Member(),
    "vit_b_16": Member(32, {"image_size": 32}),
    "swin_t": Member(left_out="*.attn.*"),
    "swin_v2_t": Member(left_out="*.attn.*"),
    "maxvit_t": Member(224),
}


def build(name: str) -> nn.Module:
    """A member with few classes, seeded."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision, about its initial weights
        net = getattr(models, name)(num_classes=CLASSES, **ZOO[name].settings)
    for weight in net.parameters():
        if weight.dim() == 2 and not weight.any():  # a head of zeros has no multiplicative noise
            nn.init.trunc_normal_(weight, std=0.02)
    return net


def check(name: str, method: Method, net: nn.Module) -> float:
    """Converts, trains a step, draws in three ways, and goes back; returns the share of weights that are random.

    Raises:
        AssertionError: where something is not as it should be.
    """
    member = ZOO[name]
    torch.manual_seed(0)
    x, y = torch.rand(2, 3, member.size, member.size), torch.tensor([0, 2])
    bayesian = bayesianize(net, method, member.only)
    made = describe(bayesian)
    weights = sum(value.numel() for value in net.parameters() if value.dim() > 1)
    random = sum(part.mean.numel() for _, part in random_weights(bayesian))
    # Mean weights are the plain network.
    with torch.no_grad(), sampling(bayesian, False):
        torch.testing.assert_close(bayesian.eval()(x), net.eval()(x), rtol=1e-3, atol=1e-3)
    # A training step changes what is random.
    bayesian.train()
    loss = F.cross_entropy(bayesian(x), y) + kl(bayesian) / 1000
    assert loss.isfinite(), loss
    loss.backward()
    missing = [n for n, value in bayesian.named_parameters() if value.requires_grad and value.grad is None]
    assert not missing, missing[:3]
    assert kl(bayesian).item() >= 0 or method.objective != "elbo"
    bayesian.zero_grad(set_to_none=True)
    # Draws of three kinds.
    kinds = ["mean", "local"] + (["weights"] if method.noise_on == "weights" else [])
    for kind in kinds:
        samples = sample_logits(bayesian, x, 2, kind)
        assert samples.shape == (1 if kind == "mean" else 2, 2, CLASSES), (kind, samples.shape)
        assert samples.isfinite().all(), kind
        assert kind == "mean" or not torch.equal(samples[0], samples[1]), kind
    # And back: the plain network, by state_dict too.
    plain = to_plain(bayesian)
    assert plain.state_dict().keys() == net.state_dict().keys()
    state = copy.deepcopy(bayesian.state_dict())
    load_plain_state_dict(bayesian, net.state_dict())
    bayesian.load_state_dict(state)
    assert made.random + made.deterministic == sum(value.numel() for value in net.parameters())
    return random / weights


def random_weights(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The random tensors that are weights: of two axes or more, with noise."""
    for name, posterior in random_tensors(net):
        if posterior.mean.dim() > 1 and not isinstance(posterior, Point):
            yield name, posterior


def run_commands(name: str, method: str) -> None:
    """``bnn fit`` for two steps, test and predict, in a new folder.

    Raises:
        AssertionError: when one of them fails.
    """
    member = ZOO[name]
    settings = [f"--model.network.{key}={str(value).lower()}" for key, value in member.settings.items()]
    words = [
        "fit", "--model.network", f"torchvision.models.{name}", *settings, "--model.method", method, "--name", "zoo",
        f"--model.only={member.only}", "--data", "MNIST5k", "--data.train_subset", "30", "--data.batch_size", "12",
        "--data.channels", "3", "--data.image_size", str(member.size), "--trainer.max_epochs", "1",
        "--trainer.limit_val_batches", "1", "--model.sampling.test_samples", "2", "--model.sampling.val_samples", "1",
    ]  # fmt: skip
    checkpoint = ["--ckpt_path", "checkpoints/zoo/version_0/last.ckpt"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            codes = [main(words)]
            codes.append(
                main(["test", *checkpoint, "--data.eval_batch_size", "10", "--trainer.limit_test_batches", "1"])
            )
            limits = ["--data.eval_batch_size", "10", "--trainer.limit_predict_batches", "1"]
            codes.append(main(["predict", *checkpoint, *limits]))
        assert codes == [0, 0, 0], said.getvalue()[-2000:]
        assert len(Path("lightning_logs/zoo/version_0/predictions.csv").read_text().splitlines()) == 11


def sweep(commands: bool, show: Callable[[str], None]) -> None:
    show(f"| network | weights | {' | '.join(METHODS)} | seconds |")
    show("| --- | ---: | " + "---: | " * len(METHODS) + "---: |")
    for name in ZOO:
        start, net, cells = time.perf_counter(), build(name), []
        for key, method in METHODS.items():
            try:
                share = check(name, method, net)
                if commands:
                    run_commands(name, key)
                cells.append(f"{share:.1%}")
            except Exception as error:
                cells.append(f"{type(error).__name__}: {' '.join(str(error).split())[:150]}")
        weights = sum(value.numel() for value in net.parameters() if value.dim() > 1)
        show(f"| {name} | {weights:,} | {' | '.join(cells)} | {time.perf_counter() - start:.0f} |")


if __name__ == "__main__":
    sweep("--commands" in sys.argv, lambda line: print(line, flush=True))
