"""Writes docs/results.md and, in results/, the figures and means of all studies from their CSV files.

python benchmarks/results.py
"""

from contextlib import chdir
from pathlib import Path

from bnn_lightning.studies.base import Study
from bnn_lightning.studies.report import report, write_report

ROOT = Path(__file__).parent.parent
STUDIES = (
    "paddle_mnist",
    "twins",
    "prior_and_temperature",
    "lr_sensitivity",
    "ablation_bn_dropout",
    "ablation_channels",
    "ablation_train_size",
    "ablation_slices",
    "ablation_seeds",
    "ablation_activation",
    "batchnorm_mlp",
    "dropout_family_cifar10",
    "dropout_family_mnist",
    "alpha_parametrisation",
    "compression_mnist",
    "ivon_lenet",
    "seconds_to_99",
    "methods_search",
    "methods",
    "uci",
    "acquisition_mnist",
    "acquisition_published",
    "acquisition_repeated_mnist",
    "acquisition_fashion",
    "acquisition_imbalanced",
)
INTRODUCTION = """# Results

Written by `python benchmarks/results.py` from the rows in [results/](../results): one row a run, with its command,
versions, seed and seconds. `bnn study configs/studies/NAME.yaml` runs what has no row yet, and no cell twice. A
published figure stands beside ours with the difference, whatever it says.

- Mean ± standard deviation over seeds (initial weights and noise; the hold-out is the same). The sampling error of an
  accuracy of 99 % on 10,000 test images is 0.1 points, of 60 % it is 0.5.
- **accuracy**: of 25 samples unless a study says otherwise, weight draws where noise is on weights. "Mean weights":
  without noise. "1 sample": one draw.
- **elbo/N** is at KL weight 1 on the training images, whatever weight trained. "tempered": that weight was not 1 at the
  end. "posterior not converged": elbo/N is below -ln K, what the untrained prior would give.
- Every figure is of the last epoch: no epoch is chosen by test images. Claims are those of the sources, and ours where
  a study has no source; "confirmed" and "contradicted" mean that the 95 % interval of the difference, paired by seed,
  leaves out 0; of one pair of accuracies ("one pair") that interval is the sampling error of the test images alone.
- CPU, float32. ms a step and seconds were measured while other runs shared the machine.
"""


def document(root: Path = ROOT) -> str:
    """The text of docs/results.md."""
    with chdir(root):  # the document gives paths relative to it
        return _document(root)


def _document(root: Path) -> str:
    studies = [Study.read(root / "configs" / "studies" / f"{name}.yaml") for name in STUDIES]
    parts = [INTRODUCTION]
    for study in studies:
        text, lines = report(study, root / "results")
        figure = f"\n![{study.title}](../results/{study.name}.png)\n" if any(line.runs for line in lines) else ""
        parts.append(text + figure)
    contents = "\n".join(f"- [{study.title}](#{_anchor(study.title)})" for study in studies)
    parts.insert(1, f"{contents}\n\nWhat was measured otherwise is in [measurements.md](measurements.md).\n")
    return "\n".join(parts)


def _anchor(title: str) -> str:
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


if __name__ == "__main__":
    for name in STUDIES:
        if (ROOT / "results" / f"{name}.csv").is_file():
            write_report(Study.read(ROOT / "configs" / "studies" / f"{name}.yaml"), ROOT / "results")
    (ROOT / "docs" / "results.md").write_text(document())
