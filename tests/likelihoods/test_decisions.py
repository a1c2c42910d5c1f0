import math
import re

import torch

from bnn_lightning.likelihoods.categorical.calibration import Calibration, scaled
from bnn_lightning.likelihoods.categorical.decisions import decision_rule
from bnn_lightning.likelihoods.categorical.predictions import ClassPredictions, Thresholds
from bnn_lightning.likelihoods.categorical.predictive import summary

CLASSES = ("cat", "dog", "owl")


def predictions(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return summary(4 * torch.randn(1, n, 3, generator=generator))


def decisions(predicted, files, class_names, calibration, target_risk, alpha):
    thresholds = Thresholds.of(calibration, target_risk, alpha)
    return ClassPredictions.of(predicted, class_names, thresholds, files).rows()


def calibrated(n=2_000):
    predicted = predictions(n, seed=1)
    labels = torch.multinomial(predicted["log_probs"].exp(), 1, generator=torch.Generator().manual_seed(2)).flatten()
    return Calibration.fit(predicted["log_probs"], labels)


def test_a_row_says_what_to_do_with_a_prediction():
    calibration, predicted = calibrated(), predictions(300)
    rows = decisions(predicted, [f"{n}.png" for n in range(300)], CLASSES, calibration, 0.1, 0.05)
    probs = predicted["log_probs"].double().exp()
    at_temperature = scaled(predicted["log_probs"].double(), calibration.temperature).exp()
    rule, within = calibration.accept_rule(0.1), calibration.prediction_set_threshold(0.05)
    for index, row in enumerate(rows):
        assert row["file"] == f"{index}.png"
        assert row["name"] == CLASSES[row["class"]] == CLASSES[int(probs[index].argmax())]
        assert row["confidence"] == round(probs[index].max().item(), 6)
        assert row["calibrated_confidence"] == round(at_temperature[index].max().item(), 6)
        assert (row["decision"] == "accept") == (probs[index].max().item() >= rule.threshold)
        likely = {CLASSES[label] for label in range(3) if probs[index][label] >= within} | {row["name"]}
        assert set(row["set"].split(" | ")) == likely
        assert row["set"].split(" | ")[0] == row["name"]
    assert {row["decision"] for row in rows} == {"accept", "abstain"}
    assert {len(row["set"].split(" | ")) for row in rows} >= {1, 2}
    words = decision_rule(calibration, 0.1, 0.05)
    assert f"confidence of {rule.threshold:.4f} or more" in words
    assert "at most 5 % of images" in words


def test_a_line_in_a_name_is_told_from_that_between_names():
    rows = decisions(predictions(20), list("abcdefghijklmnopqrst"), ("a | b", "c", "d"), calibrated(), 0.1, 1e-9)
    assert all(set(row["set"].split(" | ")) == {r"a \| b", "c", "d"} for row in rows)


def test_without_a_calibration_there_are_no_decisions():
    predicted = predictions(5)
    rows = decisions(predicted, list("abcde"), (), None, 0.01, 0.05)
    assert rows[0].keys() == {"file", "class", "name", "confidence", "entropy", "mutual_information"} | {
        *("aleatoric", "epistemic", "probability/0", "probability/1", "probability/2")
    }
    assert rows[0]["name"] == str(rows[0]["class"])
    # A network may have more outputs than classes.
    rows = decisions(predicted, list("abcde"), ("first",), None, 0.01, 0.05)
    assert {row["name"] for row in rows} <= {"first", "1", "2"}
    assert {row["name"] for row in rows} - {"first"}
    assert rows[0]["confidence"] == round(predicted["log_probs"][0].max().exp().item(), 6)
    assert "holds no calibration" in decision_rule(None, 0.01, 0.05)


def test_a_risk_that_cannot_be_promised_has_all_abstain():
    calibration = calibrated(50)
    rows = decisions(predictions(20), list(map(str, range(20))), CLASSES, calibration, 0.001, 0.05)
    assert {row["decision"] for row in rows} == {"abstain"}
    all_abstain = decision_rule(calibration, 0.001, 0.05)
    assert "All abstain: 50 calibration images cannot bound" in all_abstain
    told = re.search(
        r"without a mistake; the least that they can is a target_risk of (0\.\d+); or hold out more", all_abstain
    )
    least = float(told[1])
    assert math.isinf(calibration.accept_rule(least - 0.01).threshold)
    assert not math.isinf(calibration.accept_rule(least).threshold)
