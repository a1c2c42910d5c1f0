"""What is said of single classes, against torchmetrics, scipy and matrices made by hand."""

import pytest
import torch
from scipy.stats import binomtest
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from bnn_lightning.likelihoods.categorical import classes
from bnn_lightning.likelihoods.categorical.classes import (
    confusion_matrix,
    majority_caveats,
    missing_caveats,
    wilson_intervals,
)

NAMES = ("cat", "dog", "owl")


def imbalanced(count=400, num_classes=5):
    labels = torch.multinomial(torch.tensor([16.0, 8, 4, 2, 1]), count, replacement=True)
    log_probs = (torch.nn.functional.one_hot(labels, num_classes) + torch.randn(count, num_classes)).log_softmax(-1)
    return log_probs, labels


def test_measures_of_classes_are_torchmetrics():
    log_probs, labels = imbalanced()
    confusion = confusion_matrix(log_probs, labels)
    predicted = log_probs.argmax(-1)
    assert torch.equal(confusion, multiclass_confusion_matrix(predicted, labels, 5))
    for measure, reference in (
        (classes.recalls, multiclass_recall),
        (classes.precisions, multiclass_precision),
        (classes.f1_scores, multiclass_f1_score),
    ):
        expected = reference(predicted, labels, 5, average=None).double()
        torch.testing.assert_close(measure(confusion), expected, rtol=1e-6, atol=0)
    for mean, reference in ((classes.balanced_accuracy, multiclass_accuracy), (classes.macro_f1, multiclass_f1_score)):
        assert mean(confusion).item() == pytest.approx(
            reference(predicted, labels, 5, average="macro").item(), rel=1e-6
        )


def test_a_class_without_images_counts_in_no_mean():
    # Nothing is known of its accuracy; a prediction of it is still a mistake, which its F1 of 0 counts.
    confusion = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    assert classes.balanced_accuracy(confusion).item() == pytest.approx((6 / 8 + 3 / 4) / 2)
    assert classes.macro_f1(confusion).item() == pytest.approx((12 / 15 + 6 / 9) / 2)
    confusion[0, 2] = 4
    assert classes.macro_f1(confusion).item() == pytest.approx((12 / 19 + 6 / 9 + 0) / 3)


def test_intervals_are_scipys():
    confusion = torch.tensor([[9, 1, 0], [0, 3, 0], [40, 60, 0]])
    low, high = wilson_intervals(confusion.diagonal(), confusion.sum(1))
    for label, (hits, images) in enumerate(((9, 10), (3, 3), (0, 100))):
        interval = binomtest(hits, images).proportion_ci(0.95, "wilson")
        assert (low[label].item(), high[label].item()) == pytest.approx(interval, abs=2e-5)  # 1.96 is rounded


def test_a_model_that_gives_one_answer_is_no_better_than_the_majority():
    assert majority_caveats(torch.tensor([[90, 0, 0], [6, 0, 0], [4, 0, 0]]), NAMES) == [
        "not shown to be more accurate than always cat (90.0 % of the images)",
        "balanced accuracy not shown to be better than guessing (33.3 %)",
    ]


def test_a_model_that_tells_classes_apart_is_better_than_the_majority():
    assert majority_caveats(torch.tensor([[88, 2, 0], [1, 9, 0], [0, 2, 18]]), NAMES) == []


def test_a_model_for_rare_classes_may_be_less_accurate_than_the_majority():
    # As class weights make them: 75 % of each class is recognised, which is below the 90 % of the first.
    (caveat,) = majority_caveats(torch.tensor([[675, 225], [25, 75]]), NAMES)
    assert caveat == "not shown to be more accurate than always cat (90.0 % of the images)"


def test_classes_without_test_images_are_named():
    assert missing_caveats(torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), NAMES) == [
        "no images of 1 of 3 classes (owl)"
    ]
    assert missing_caveats(torch.eye(3, dtype=torch.int64), NAMES) == []
    one = torch.zeros(9, 9, dtype=torch.int64).fill_diagonal_(1).clone()
    one[1:] = 0
    assert missing_caveats(one, [*"abcdefghi"]) == ["no images of 8 of 9 classes (b; c; d and 5 more)"]


def test_guessing_is_rarely_taken_for_more():
    # Of models that guess by the frequencies of the classes, 2.5 % are above guessing by 1.96 standard errors.
    taken_for_more = 0
    for _ in range(400):
        labels, guesses = (torch.randint(0, 3, (300,)) for _ in range(2))
        confusion = (labels * 3 + guesses).bincount(minlength=9).view(3, 3)
        taken_for_more += not any("balanced" in caveat for caveat in majority_caveats(confusion, NAMES))
    assert taken_for_more / 400 < 0.025 + 5 * (0.025 * 0.975 / 400) ** 0.5
