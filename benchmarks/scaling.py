"""Draws docs/scaling.png: how time and memory grow with batch, width, threads and samples."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

METHODS = {"ours, BBB": "BBB", "ours, LRT": "LRT", "ours, LRT, compiled": "LRT, compiled"}


def draw(results, path):
    growth = results["growth"]["found"]
    figure, axes = plt.subplots(1, 5, figsize=(16, 3.4), layout="constrained")
    panels = (
        ("batch", "images in a batch (LeNet)"),
        ("width", "width (CIFARNet)"),
        ("threads", "threads (3Conv3FC)"),
    )
    for axis, (key, label) in zip(axes, panels, strict=False):
        sizes = [int(size) for size in growth[key]]
        for name, title in METHODS.items():
            steps = [by_name[name] for by_name in growth[key].values()]
            ratios = [step["ratio"] for step in steps]
            low = [step["ratio"] - step["low"] for step in steps]
            high = [step["high"] - step["ratio"] for step in steps]
            axis.errorbar(sizes, ratios, (low, high), marker="o", markersize=4, capsize=2, label=title)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.set(xlabel=label, ylim=(0, None))
        axis.axhline(1, color="0.7", linewidth=1)
    axes[0].set_ylabel("training step, over the twin's")
    axes[0].legend(fontsize=8)
    by_count = results["samples"]["found"]
    samples = [int(count) for count in by_count]
    for draws, title in (("weights", "weight draws"), ("local", "LRT")):
        seconds = [by_draws[draws]["seconds"] for by_draws in by_count.values()]
        megabytes = [by_draws[draws]["bytes"] / 1e6 for by_draws in by_count.values()]
        axes[3].loglog(samples, seconds, marker="o", markersize=4, label=title)
        axes[4].semilogx(samples, megabytes, marker="o", markersize=4, label=title)
    for axis, label in zip(axes[3:], ("seconds", "added peak memory, MB"), strict=True):
        axis.set(xlabel="samples of 64 images (3Conv3FC)", ylabel=label)
        axis.legend(fontsize=8)
    axes[4].set_ylim(0, None)
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
