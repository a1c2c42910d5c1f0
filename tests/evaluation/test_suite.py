from dataclasses import replace

import numpy as np
import pytest
import torch

from bnn_lightning import Categorical
from bnn_lightning.evaluation import suite
from bnn_lightning.evaluation.collect import SetOutputs
from bnn_lightning.likelihoods.categorical.calibration import Calibration, scaled
from bnn_lightning.likelihoods.categorical.predictive import log_predictive, summary
from bnn_lightning.likelihoods.categorical.scores import ood_scores, scores

DRAWS, IMAGES, CLASSES = 8, 400, 5


def outputs_of(seed, spread=1.0, images=IMAGES, confident=6.0):
    """What a network said about images: logits of draws around a right answer."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    truth = torch.nn.functional.one_hot(labels, CLASSES) * confident
    logits = (
        truth
        + spread * torch.randn(DRAWS, images, CLASSES, generator=generator)
        + torch.randn(images, CLASSES, generator=generator)
    )
    return SetOutputs(summary(logits), labels, logits)


def evaluate(sets, calibration=None, members=1):
    return suite.evaluate(sets, Categorical(), calibration, members)


def calibration(temperature):
    return Calibration(temperature, torch.ones(1), torch.ones(1, dtype=torch.bool), torch.ones(1))


def test_scores_are_those_of_the_mean_over_all_draws():
    outputs = outputs_of(0)
    evaluation = evaluate({"test": outputs}, None)
    expected = scores(log_predictive(outputs.outputs), outputs.labels)
    assert {name: estimate.value for name, estimate in evaluation.predictions["samples"].items()} == expected
    assert evaluation.images == IMAGES
    assert evaluation.temperature is None
    # The same through the mean over draws that the bootstrap uses: no softmax of a softmax on the way.
    probs = outputs.outputs.softmax(-1).mean(0)
    assert scores(probs.log(), outputs.labels) == pytest.approx(expected, rel=1e-4)


def test_scaled_scores_are_at_the_calibrated_temperature():
    outputs = outputs_of(0)
    row = evaluate({"test": outputs}, calibration(2.0)).predictions["samples"]
    expected = scores(scaled(outputs.summary["log_probs"], 2.0), outputs.labels)
    for name in ("nll", "brier", "ece", "adaptive_ece"):
        assert row[f"{name}_scaled"].value == pytest.approx(expected[name], rel=1e-6)
    assert row["accuracy"].value == expected["accuracy"]


def test_errors_come_from_images_and_from_draws():
    # More images shrink the one, equal draws leave nothing of the other.
    outputs = outputs_of(0)
    row = evaluate({"test": outputs}, None).predictions["samples"]
    nll = -outputs.summary["log_probs"].gather(1, outputs.labels.unsqueeze(1))
    expected = nll.std().item() / IMAGES**0.5
    assert row["nll"].image_error == pytest.approx(expected, rel=5 / 200**0.5)
    assert row["nll"].draw_error > 0
    equal = replace(outputs, outputs=outputs.outputs[:1].expand(DRAWS, -1, -1))
    assert evaluate({"test": equal}, None).predictions["samples"]["nll"].draw_error == pytest.approx(0, abs=1e-6)
    single = replace(outputs, outputs=outputs.outputs[:1])
    assert evaluate({"test": single}, None).predictions["samples"]["nll"].draw_error is None


@pytest.mark.slow
def test_draw_error_is_the_spread_over_other_draws():
    # The same images with new draws, many times: the spread of the NLL is what the bootstrap of one set estimates.
    generator = torch.Generator().manual_seed(5)
    base = outputs_of(0)
    centre = base.outputs.mean(0, keepdim=True)
    values, estimates = [], []
    for number in range(400):
        logits = centre + torch.randn(20, IMAGES, CLASSES, generator=generator) * 2
        outputs = SetOutputs(summary(logits), base.labels, logits)
        values.append(-outputs.summary["log_probs"].gather(1, base.labels.unsqueeze(1)).mean().item())
        if number < 10:
            estimates.append(evaluate({"test": outputs}, None).predictions["samples"]["nll"].draw_error)
    spread = torch.tensor(values).std().item()
    # Standard deviations of 400 values, and of 10 times 100, have relative errors of 1 / sqrt(800) and 1 / sqrt(2000);
    # the bootstrap of 20 draws has sqrt(19 / 20) of the spread, 2.5 % less.
    assert sum(estimates) / 10 == pytest.approx(spread, rel=5 * (1 / 800 + 1 / 2000) ** 0.5 + 0.025)


def test_an_ensembles_draw_error_is_that_of_its_members_draws():
    # Members that differ, each with draws that do not: there is nothing that could have been drawn otherwise.
    outputs = outputs_of(0)
    logits = outputs.outputs[:2].repeat_interleave(4, 0)
    row = evaluate({"test": replace(outputs, outputs=logits)}, None, members=2).predictions["samples"]["nll"]
    assert row.draw_error == pytest.approx(0, abs=1e-6)
    assert evaluate({"test": replace(outputs, outputs=logits)}).predictions["samples"]["nll"].draw_error > 1e-4
    row = evaluate({"test": replace(outputs, outputs=logits[::4])}, None, members=2).predictions["samples"]["nll"]
    assert row.draw_error is None


def test_other_ways_of_predicting_are_scored_on_their_own():
    outputs = replace(outputs_of(0), alternatives={"mean_weights": {"log_probs": outputs_of(1).summary["log_probs"]}})
    evaluation = evaluate({"test": outputs}, None)
    assert list(evaluation.predictions) == ["samples", "mean_weights"]
    expected = scores(outputs_of(1).summary["log_probs"], outputs.labels)
    assert evaluation.predictions["mean_weights"]["nll"].value == expected["nll"]


def test_ood_compares_the_other_images_with_the_test_images():
    # The fault of a peer: in-distribution images in the place of the others give 0.5.
    inside, outside = outputs_of(0), outputs_of(1, confident=0.0, images=300)
    evaluation = evaluate({"test": inside, "ood/other": outside, "ood/same": inside}, None)
    assert list(evaluation.ood) == ["other", "same"]
    inside_scores, outside_scores = ood_scores(inside.summary), ood_scores(outside.summary)
    assert list(evaluation.ood["other"]) == list(inside_scores)
    for score in inside_scores:
        low, high = inside_scores[score].double(), outside_scores[score].double()
        share = ((high[:, None] > low).double() + 0.5 * (high[:, None] == low)).mean().item()
        row = evaluation.ood["other"][score]
        assert row["auroc"].value == pytest.approx(share, abs=1e-6)
        assert 0 < row["auroc"].image_error < 0.05
        assert evaluation.ood["same"][score]["auroc"].value == pytest.approx(0.5)
    assert evaluation.ood["other"]["entropy"]["auroc"].value > 0.9
    assert evaluation.undetected == ["same"]
    assert replace(evaluation, ood={"other": {}}).undetected == []  # a likelihood without scores of its own


def test_one_minus_max_p_keeps_its_order_where_p_rounds_to_one():
    log_probs = torch.tensor([[-1e-9, -20.0], [-1e-12, -30.0]])
    values = ood_scores(summary(log_probs.unsqueeze(0)) | {"log_probs": log_probs})["one_minus_max_p"]
    assert values[0] > values[1] > 0


def test_tempered_entropy_is_numpys():
    log_probs = torch.randn(20, 4, dtype=torch.float64).log_softmax(-1)
    powers = np.exp(log_probs.numpy()) ** (1 / 3)
    probs = powers / powers.sum(1, keepdims=True)
    expected = -(probs * np.log(probs)).sum(1)
    values = ood_scores(summary(log_probs.unsqueeze(0)))["tempered_entropy"]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-9)


def test_corruptions_are_scored_and_every_number_has_a_name_for_a_logger():
    sets = {
        "test": outputs_of(0),
        "ood/other": outputs_of(1),
        "clean/0": outputs_of(2),
        "noise/1": outputs_of(3),
        "noise/2": outputs_of(4),
    }
    evaluation = evaluate(sets, None)
    assert list(evaluation.corruptions) == ["clean", "noise"]
    expected = scores(sets["noise/2"].summary["log_probs"], sets["noise/2"].labels)
    assert evaluation.corruptions["noise"][2] == {name: expected[name] for name in ("accuracy", "nll", "ece")}
    flat = evaluation.flat()
    assert flat["test/nll"] == evaluation.predictions["samples"]["nll"].value
    assert flat["ood_other/entropy_auroc"] == evaluation.ood["other"]["entropy"]["auroc"].value
    assert flat["corruption_noise/nll_2"] == expected["nll"]
