"""Times the acquisition rules on a pool of 10,000 images, beside batchbald_redux where it is installed.

python benchmarks/acquisition.py [--redux FOLDER]

The pool is one of logits: 50 draws of networks that are sure of most images and disagree about some, as a network that
has learnt a little is. FOLDER is where ``pip install --no-deps --target FOLDER batchbald_redux toma psutil`` has put
it.
"""

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bnn_lightning.acquisition import RULES, acquire

IMAGES, SAMPLES, CLASSES, COUNT = 10_000, 50, 10, 10


def pool(images: int = IMAGES, samples: int = SAMPLES, classes: int = CLASSES) -> torch.Tensor:
    """Logits ``(samples, images, classes)``."""
    generator = torch.Generator().manual_seed(0)
    # How sure a network is of an image, and how far the draws differ about it: most are easy, some are not.
    easy = torch.rand(images, 1, generator=generator).pow(0.5)
    shared = 8 * easy * torch.nn.functional.one_hot(torch.randint(classes, (images,), generator=generator), classes)
    # Draws differ along a few directions that images share, as weights do; else nothing of a batch would overlap.
    directions = torch.randn(8, images, classes, generator=generator) * (1.2 - easy)
    draws = torch.randn(samples, 8, generator=generator)
    return shared + torch.einsum("td,dnk->tnk", draws, directions) / 2


def timed(function: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def redux(folder: str, logits: torch.Tensor) -> tuple[float, list[int]] | None:
    """Seconds and choice of batchbald_redux; None where it is not there."""
    sys.path.insert(0, folder)
    if importlib.util.find_spec("batchbald_redux") is None:
        return None
    from batchbald_redux.batchbald import get_batchbald_batch

    log_probs = logits.log_softmax(-1).permute(1, 0, 2).double()  # (images, samples, classes)
    torch.manual_seed(0)
    seconds, batch = timed(lambda: get_batchbald_batch(log_probs, COUNT, 10_000, dtype=torch.double))
    return seconds, list(batch.indices)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--redux", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=IMAGES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logits = pool(arguments.images)
    results: dict[str, Any] = {"images": arguments.images, "draws": SAMPLES, "threads": arguments.threads}
    for by in RULES:
        targets = logits[:, :200] if by == "epig" else None
        seconds, chosen = timed(lambda by=by, targets=targets: acquire(logits, COUNT, by, targets))
        results[by] = {"seconds": round(seconds, 2), "chosen": chosen.images.tolist()}
        if chosen.joint is not None:
            results[by]["joint"] = [round(value, 4) for value in chosen.joint.tolist()]
        print(by, results[by], flush=True)
    if arguments.redux and (theirs := redux(arguments.redux, logits)) is not None:
        same = sum(ours == other for ours, other in zip(results["batchbald"]["chosen"], theirs[1], strict=True))
        results["batchbald_redux"] = {"seconds": round(theirs[0], 2), "chosen": theirs[1], "same": same}
        print("batchbald_redux", results["batchbald_redux"])
    Path("results/acquisition.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
