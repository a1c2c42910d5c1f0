"""Scores by numpy, from their definitions."""

import numpy as np
import torch


def reference(probs, labels):
    """The metrics by numpy, from their definitions."""
    n, rows = len(labels), np.arange(len(labels))
    confidence, predicted = probs.max(1), probs.argmax(1)
    correct = predicted == labels
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    ece = sum(
        abs(correct[bins == index].mean() - confidence[bins == index].mean()) * (bins == index).mean()
        for index in np.unique(bins)
    )
    rising = np.argsort(confidence)
    adaptive = sum(
        abs(correct[part].mean() - confidence[part].mean()) * len(part) / n for part in np.array_split(rising, 15)
    )
    recalls, f1_scores = [], []
    for label in range(probs.shape[1]):
        hits = (correct & (labels == label)).sum()
        of_class, as_class = (labels == label).sum(), (predicted == label).sum()
        recalls += [hits / of_class]
        f1_scores += [2 / (of_class / hits + as_class / hits)]
    wrong = ~correct[rising[::-1]]
    risk = np.cumsum(wrong) / (rows + 1)
    return {
        "accuracy": correct.mean(),
        "balanced_accuracy": np.mean(recalls),
        "macro_f1": np.mean(f1_scores),
        "nll": -np.log(probs[rows, labels]).mean(),
        "brier": ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(1).mean(),
        "ece": ece,
        "adaptive_ece": adaptive,
        "aurc": risk.mean(),
        "risk_at_80": wrong[: round(0.8 * n)].mean(),
        "risk_at_90": wrong[: round(0.9 * n)].mean(),
        "risk_at_95": wrong[: round(0.95 * n)].mean(),
    }


def predictions(n=500):
    log_probs = (2 * torch.randn(n, 6, dtype=torch.float64)).log_softmax(-1)
    return log_probs, torch.where(torch.rand(n) < 0.5, log_probs.argmax(-1), torch.randint(0, 6, (n,)))
