"""The figure of how cost grows."""

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

METHODS = {"ours, BBB": "BBB", "ours, LRT": "LRT", "ours, LRT, compiled": "LRT, compiled"}


def draw(results, path):
    found = results["growth"]["found"]
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
    panels = (
        ("batch", "images in a batch (LeNet)"),
        ("width", "width (CIFARNet)"),
        ("threads", "threads (3Conv3FC)"),
    )
    for axis, (key, label) in zip(axes, panels, strict=False):
        places = [int(place) for place in found[key]]
        for name, title in METHODS.items():
            ratios = [one[name]["ratio"] for one in found[key].values()]
            low = [one[name]["ratio"] - one[name]["low"] for one in found[key].values()]
            high = [one[name]["high"] - one[name]["ratio"] for one in found[key].values()]
            axis.errorbar(places, ratios, (low, high), marker="o", markersize=4, capsize=2, label=title)
        axis.set_xscale("log", base=2)
        axis.set_xticks(places, [str(place) for place in places])
        axis.minorticks_off()
        axis.set(xlabel=label, ylim=(0, None))
        axis.axhline(1, color="0.7", linewidth=1)
    axes[0].set_ylabel("training step, over the twin's")
    axes[0].legend(fontsize=8)
    samples = [int(count) for count in found["samples"]]
    for draws, title in (("weights", "weight draws"), ("local", "LRT")):
        of_draws = [one[draws] for one in found["samples"].values()]
        axes[3].loglog(samples, [one["seconds"] for one in of_draws], marker="o", markersize=4, label=f"{title}, s")
        megabytes = [one["bytes"] / 1e9 for one in of_draws]
        axes[3].loglog(samples, megabytes, "--", marker="s", markersize=3, label=f"{title}, GB")
    axes[3].set_xlabel("samples of 256 images (LeNet)")
    axes[3].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
