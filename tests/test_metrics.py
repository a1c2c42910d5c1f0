import numpy as np
import pytest
import torch

from bnn_lightning.metrics import test_metrics as evaluation_metrics


def reference(probs, labels):
    """The four metrics by numpy, from their definitions."""
    rows = np.arange(len(labels))
    confidence, predicted = probs.max(1), probs.argmax(1)
    correct = predicted == labels
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    ece = sum(
        abs(correct[bins == index].mean() - confidence[bins == index].mean()) * (bins == index).mean()
        for index in np.unique(bins)
    )
    brier = ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(1).mean()
    return {"accuracy": correct.mean(), "nll": -np.log(probs[rows, labels]).mean(), "ece": ece, "brier": brier}


def test_against_numpy_in_unequal_batches():
    log_probs = (2 * torch.randn(500, 6)).log_softmax(-1)
    labels = torch.where(torch.rand(500) < 0.5, log_probs.argmax(-1), torch.randint(0, 6, (500,)))
    metrics = evaluation_metrics()
    for part in (slice(0, 7), slice(7, 400), slice(400, 500)):
        metrics.update(log_probs[part], labels[part])
    expected = reference(log_probs.double().exp().numpy(), labels.numpy())
    for name, value in metrics.compute().items():
        assert value.item() == pytest.approx(expected[name], rel=1e-4), name
