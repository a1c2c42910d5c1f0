"""Figures."""

import errno
import os
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.methods import BBB, LRT
from bnn_lightning.core.priors import FanIn, LaplacePrior
from bnn_lightning.core.whole_network import random_tensors
from bnn_lightning.files import UnwritableError
from bnn_lightning.reporting import figures

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")


def test_a_figure_is_the_old_one_until_the_new_one_is_whole(monkeypatch):
    path = Path("figures/curve.png")

    def draw():
        figures.pruning_curve(path, [0, 0.5], [0.9, 0.8], "title")

    draw()
    old = path.read_bytes()

    def half(self, place, **_):
        Path(place).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(UnwritableError, match=r"^figures/curve\.png cannot be written: No space left on device\.$"):
        draw()
    assert (path.read_bytes(), [file.name for file in path.parent.iterdir()]) == (old, ["curve.png"])


def test_no_bin_of_a_reliability_diagram_is_certain_and_no_legend_lies_over_its_line(monkeypatch):
    drawn = []
    monkeypatch.setattr("bnn_lightning.reporting.figures.uncertainty.save", lambda figure, path: drawn.append(figure))
    probs = torch.tensor([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.75, 0.25]])  # all right, all wrong, one image
    figures.reliability(Path("unused.png"), {"a": probs.log(), "b": probs.log()}, torch.tensor([0, 0, 1, 0]))
    for axis in drawn[0].axes[:2]:
        assert axis.get_legend() is None
        bars = axis.collections[0].get_segments()
        ends = [(lower, upper) for (_, lower), (_, upper) in bars]
        # Wilson's: z^2 / (n + z^2) from the end.
        expected = [(0, 0.7935), (0.2065, 1), (0.3424, 1)]
        for (lower, upper), (low, high) in zip(ends, expected, strict=True):
            assert (lower, upper) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_bins_of_few_images_have_bars_to_see(monkeypatch):
    drawn = []
    monkeypatch.setattr("bnn_lightning.reporting.figures.uncertainty.save", lambda figure, path: drawn.append(figure))
    many, few = torch.tensor([[0.95, 0.05]]).expand(1000, 2), torch.tensor([[0.6, 0.4]]).expand(2, 2)
    figures.reliability(Path("unused.png"), {"a": torch.cat([many, few]).log()}, torch.zeros(1002, dtype=torch.int64))
    lowest, highest = drawn[0].axes[1].get_ylim()
    assert (lowest, highest >= 1000) == (0.5, True)


def test_no_legend_lies_over_the_curves_of_an_image_that_turns(monkeypatch):
    drawn = []
    monkeypatch.setattr("bnn_lightning.reporting.figures.uncertainty.save", lambda figure, path: drawn.append(figure))
    pixels = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    figures.rotated_image(Path("unused.png"), [0, 45, 90], pixels, torch.randn(5, 3, 4), list("abcd"))
    assert all(axis.get_legend() is None for axis in drawn[0].axes)
    labels = [[text.get_text() for text in legend.get_texts()] for legend in drawn[0].legends]
    assert labels == [["a", "b", "c", "d"], ["predictive entropy", "mutual information"]]


def test_a_posterior_is_drawn_with_its_prior_where_that_is_one_normal_density():
    for prior, is_drawn in ((None, True), (FanIn(), True), (LaplacePrior(), False)):
        net = bayesianize(nn.Sequential(nn.Linear(3, 2)), LRT(prior_mu=0.1, prior_sigma=0.2, prior=prior))
        axis = figures.posterior_and_prior(random_tensors(net)).axes[0]
        lines = {line.get_label(): line for line in axis.get_lines()}
        assert ("prior" in lines) == is_drawn
        if prior is None:
            x, y = (torch.as_tensor(values) for values in lines["prior"].get_data())
            torch.testing.assert_close(y, torch.distributions.Normal(0.1, 0.2).log_prob(x).exp())


def test_a_posterior_of_recurrent_weights_is_drawn_and_one_of_biases_alone_is_not():
    net = bayesianize(nn.Sequential(nn.LSTM(3, 2)), BBB())
    titles = [axis.get_title() for axis in figures.posterior_and_prior(random_tensors(net)).axes]
    assert [title.partition(":")[0] for title in titles if title] == ["0.weight_ih_l0", "0.weight_hh_l0"]
    biases = [(name, part) for name, part in random_tensors(net) if "bias" in name]
    assert len(biases) == 2
    assert figures.posterior_and_prior(biases) is None


UNKNOWN = "\U000f0001"  # a letter for private use, which no font has
ODD = ["_red", UNKNOWN, "$x$ and $y$", "a|b", "plain", UNKNOWN * 20]


def texts(figure):
    return {text.get_text() for text in figure.findobj(Text) if text.get_text()}


@pytest.fixture
def drawn(monkeypatch):
    """The texts of each figure that is saved; a warning of matplotlib would be an error."""
    found = []
    savefig = Figure.savefig

    def save(self, *args, **kwargs):
        savefig(self, *args, **kwargs)
        found.append(texts(self))

    monkeypatch.setattr(Figure, "savefig", save)
    return found


def test_class_names_are_drawn_letter_by_letter(drawn):
    with figures.names_in_fonts(ODD) as classes:
        assert classes == ["_red", "class 1", "$x$ and $y$", "a|b", "plain", "class 5"]
        pixels = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
        logits = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0]).expand(2, 3, 6)
        figures.rotated_image(Path("turning.png"), [0, 1, 2], pixels, logits, classes)
        # matplotlib leaves a legend's label out that begins with an underscore, and takes two dollars for a formula.
        assert {" _red", "class 1", r"\$x\$ and \$y\$", "a|b"} <= drawn[0]
        figures.class_uncertainty(
            Path("uncertainty.png"), [(f"_set\nan image, a {UNKNOWN} $5 to $6", pixels[0], logits[:, 0])], classes
        )
        assert {" _set\nan image, a ? \\$5 to \\$6", " _red", "class 5", "plain"} <= drawn[1]
        results = {
            "entropy": torch.arange(3.0),
            "log_probs": logits[0].log_softmax(-1),
            "labels": torch.tensor([0, 1, 2]),
        }
        figures.most_and_least_certain(Path("extremes.png"), results, pixels, classes)
    assert any("is class 1" in text for text in drawn[2])


def test_names_of_sets_and_of_runs_are_drawn_letter_by_letter(drawn):
    scores = {"entropy": torch.tensor([0.1, 0.2]), "mutual_information": torch.zeros(2)}
    figures.score_histograms(Path("ood.png"), ("_test", scores), {"a$b$": scores})
    assert {" _test", r"a\$b\$"} <= drawn[0]
    log_probs = torch.tensor([[0.9, 0.1], [0.4, 0.6]]).log()
    figures.risk_coverage_curve(Path("risk.png"), {"_draws": log_probs}, torch.tensor([0, 0]))
    assert any(text.startswith(" _draws (AURC") for text in drawn[1])
    figures.pruning_curve(Path("pruning.png"), [0, 0.5], [0.9, 0.8], f"$HOME/{UNKNOWN}/$1.ckpt")
    assert r"\$HOME/?/\$1.ckpt" in drawn[2]
