"""Measures time and memory of training steps, predictions and epochs: ours, a deterministic twin, other libraries.

All candidates of a measurement take turns in one process, so that other load on the machine affects them equally. A
ratio is the median, over turns, of a candidate's seconds divided by the twin's in the same turn; it is given with the
quartiles. The twin is the same network in plain torch layers with torch's defaults: eager, NCHW memory.

    pip install -e '.[bench]'
    python benchmarks/speed.py all --root data      # everything below into results/speed.json, docs/scaling.png
    python benchmarks/speed.py step predict         # only those measurements
    python benchmarks/speed.py table                # the tables of README.md and docs/performance.md
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import rivals
import rows
import torch
import torch.nn.functional as F

from bnn_lightning import (
    BBB,
    LRT,
    CIFARNet,
    Flipout,
    LeNet,
    Sampler,
    ThreeConvThreeFC,
    bayesianize,
    keep_freed_memory,
    kl,
)
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.whole_network import bayesian_layers

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results" / "speed.json"
NETWORKS = {"3Conv3FC": ThreeConvThreeFC, "LeNet": LeNet}
PACKAGES = ("torch", "lightning", "bayesian-torch", "torchbnn", "blitz-bayesian-pytorch", "torch-uncertainty")
PEERS = {
    "torchbnn, BBB": rivals.torchbnn,
    "bayesian-torch, BBB": rivals.bayesian_torch,
    "lightning-uq-box, BBB": rivals.uq_box,
    "blitz, BBB": rivals.blitz,
    "torch-uncertainty, BBB": rivals.torch_uncertainty,
    "bayesian-torch, Flipout": lambda net: rivals.bayesian_torch(net, "Flipout"),
    "lightning-uq-box, Flipout": lambda net: rivals.uq_box(net, "flipout"),
    "textbook LRT": rivals.textbook_lrt,
}
TWIN = "deterministic twin"
WAYS = {"moments": "moments", "25 weight draws": "weights", "25 local draws": "local"}


def ours(net, method, compiled=False):
    """``net`` in channels_last memory, Bayesian unless ``method`` is None."""
    net = net if method is None else bayesianize(net, method)
    net.to(memory_format=torch.channels_last)
    for layer in bayesian_layers(net):
        layer.compiles = compiled
    return net


def own_candidates(make):
    """By name: network, function that gives its KL or None, and whether images come in channels_last memory."""
    candidates = {"our twin, channels_last": (ours(make(), None), None, True)}
    for method in (BBB(), Flipout(), LRT()):
        for compiled in (False, True):
            net = ours(make(), method, compiled)
            name = f"ours, {type(method).__name__}{', compiled' if compiled else ''}"
            candidates[name] = (net, lambda net=net: kl(net), True)
    return candidates


def training_step(net, divergence, x, labels):
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def step():
        loss = F.cross_entropy(net(x), labels)
        if divergence is not None:
            loss = loss + divergence() / 48_000
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def take_turns(candidates, turns, warm_up=3):
    """Seconds of each turn of each candidate, and seconds of its first call, which includes compilation."""
    first_call = {}
    for name, run in candidates.items():
        start = time.perf_counter()
        run()
        first_call[name] = time.perf_counter() - start
        for _ in range(warm_up):
            run()
    seconds = {name: [] for name in candidates}
    for _ in range(turns):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, first_call


def summarised(seconds, twin=TWIN):
    """For each candidate: median seconds, and the quartiles of its ratio to the twin."""
    summaries = {}
    for name, times in seconds.items():
        ratios = [time / twin_time for time, twin_time in zip(times, seconds[twin], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        summaries[name] = {"seconds": statistics.median(times), "ratio": middle, "low": low, "high": high}
    return summaries


def step(arguments):
    """A training step: forward, loss with KL, backward, fused Adam; batch 256, 1x32x32."""
    by_network = {}
    x, labels = torch.randn(256, 1, 32, 32), torch.randint(0, 10, (256,))
    for name, make in NETWORKS.items():
        candidates = {TWIN: training_step(make(), None, x, labels)}
        for title, (net, divergence, is_channels_last) in own_candidates(make).items():
            candidates[title] = training_step(net, divergence, channels_last(x) if is_channels_last else x, labels)
        for title, build in PEERS.items():
            if (built := built_if_installed(build, make())) is not None:
                candidates[title] = training_step(*built, x, labels)
        seconds, first_call = take_turns(candidates, arguments.turns * (1 if name == "3Conv3FC" else 3))
        by_network[name] = summarised(seconds)
        for title in candidates:
            by_network[name][title]["first_call"] = first_call[title]
    return by_network


def built_if_installed(build, net):
    """Another library's network and KL; None if the library is not installed."""
    try:
        return build(net)
    except ImportError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


def forwards(net, x, count):
    """A function that runs ``count`` forward passes."""
    net.eval()

    @torch.no_grad()
    def run():
        for _ in range(count):
            net(x)

    return run


def predict(arguments):
    """32 samples for 256 images, relative to 32 forward passes of the twin."""
    by_network = {}
    x = torch.randn(256, 1, 32, 32)
    for name, make in NETWORKS.items():
        candidates = {TWIN: forwards(make(), x, 32)}
        for compiled in (False, True):
            net, suffix = ours(make(), LRT(), compiled), ", compiled" if compiled else ""
            # A new sampler each time, so that drawing the weights is included; bnn test does that only once.
            if not compiled:
                candidates["ours, weight draws"] = lambda net=net: Sampler(net, 32, "weights")(channels_last(x))
                sampler = Sampler(net, 32, "weights")
                candidates["ours, weight draws, later batches"] = lambda sampler=sampler: sampler(channels_last(x))
            candidates[f"ours, LRT{suffix}"] = lambda net=net: Sampler(net, 32, "local")(channels_last(x))
        for title in ("textbook LRT", "bayesian-torch, Flipout", "lightning-uq-box, Flipout"):
            if (built := built_if_installed(PEERS[title], make())) is not None:
                candidates[title] = forwards(built[0], x, 32)
        by_network[name] = summarised(take_turns(candidates, max(3, arguments.turns // 3), warm_up=0)[0])
    return by_network


def uncertainty(arguments):
    """256 images with their uncertainty, relative to one forward pass of the twin: moments, and 25 samples."""
    by_network = {}
    x = torch.randn(256, 1, 32, 32)
    for name, make in NETWORKS.items():
        plain = ours(make(), None)
        candidates = {TWIN: forwards(make(), x, 1), "our twin, channels_last": forwards(plain, channels_last(x), 1)}
        for compiled in (False, True):
            net, suffix = ours(make(), LRT(), compiled), ", compiled" if compiled else ""
            for title, draws in WAYS.items():
                sampler = Sampler(net, 25, draws)
                candidates[f"ours, {title}{suffix}"] = lambda sampler=sampler: sampler(channels_last(x))
        for title, build in PEERS.items():
            if (built := built_if_installed(build, make())) is not None:
                candidates[f"{title}, 25 passes"] = forwards(built[0], x, 25)
        by_network[name] = summarised(take_turns(candidates, max(3, arguments.turns // 5), warm_up=0)[0])
    return by_network


def memory(arguments):
    """Peak bytes of tensors during a training step of 3Conv3FC, above those before it, as torch counts them."""
    names = [TWIN, "our twin, channels_last", "ours, BBB", "ours, LRT", "ours, LRT, compiled", "textbook LRT"]
    peaks = {name: int(in_a_process("memory_of_one", name).split()[-1]) for name in names}
    return {name: {"bytes": peak, "ratio": peak / peaks[TWIN]} for name, peak in peaks.items()}


def memory_of_one(_):
    """Prints the peak bytes of the candidate that the environment names."""
    name = os.environ["BNN_MEASURE"]
    x, labels = torch.randn(256, 1, 32, 32), torch.randint(0, 10, (256,))
    if name == TWIN:
        run = training_step(ThreeConvThreeFC(), None, x, labels)
    elif name in PEERS:
        run = training_step(*PEERS[name](ThreeConvThreeFC()), x, labels)
    else:
        net, divergence, _ = own_candidates(ThreeConvThreeFC)[name]
        run = training_step(net, divergence, channels_last(x), labels)
    for _ in range(3):
        run()
    with torch.profiler.profile(profile_memory=True) as profiler:
        run()
    allocated = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    print(peak)


def resident_bytes(key):
    """A memory size of this process from /proc, such as VmHWM, the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def epoch(arguments):
    """LeNet LRT over 48,000 MNIST images: ``bnn fit`` without validation, and a common pipeline in plain PyTorch."""
    import epochs

    candidates = epochs.candidates(arguments.root)
    seconds, _ = take_turns(candidates, max(3, arguments.turns // 5), warm_up=0)
    return summarised(seconds, twin=epochs.COMMON)


def start(arguments):
    """Seconds until the help text is printed."""
    bnn = str(Path(sys.executable).with_name("bnn"))
    commands = {
        "import lightning.pytorch": [sys.executable, "-c", "import lightning.pytorch"],
        "bnn --help": [bnn, "--help"],
        "bnn fit --help": [bnn, "fit", "--help"],
    }
    candidates = {
        name: lambda command=command: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        for name, command in commands.items()
    }
    return summarised(take_turns(candidates, max(7, arguments.turns // 2), warm_up=1)[0], "import lightning.pytorch")


def growth(arguments):
    """The cost of a training step against batch size, width and number of threads."""
    results = {"batch": {}, "width": {}, "threads": {}}

    def relative_to_twin(make, batch, channels, turns):
        x, labels = torch.randn(batch, channels, 32, 32), torch.randint(0, 10, (batch,))
        candidates = {TWIN: training_step(make(), None, x, labels)}
        for name in ("ours, BBB", "ours, LRT", "ours, LRT, compiled"):
            net, divergence, _ = own_candidates(make)[name]
            candidates[name] = training_step(net, divergence, channels_last(x), labels)
        return summarised(take_turns(candidates, turns, warm_up=2)[0])

    for batch in (64, 256, 1024, 4096):
        results["batch"][batch] = relative_to_twin(LeNet, batch, 1, 9)
    for scale in (1, 2, 4):
        results["width"][scale] = relative_to_twin(lambda scale=scale: CIFARNet(scale=scale), 256, 3, 9)
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        results["threads"][count] = relative_to_twin(ThreeConvThreeFC, 256, 1, 7)
    torch.set_num_threads(threads)
    return results


def samples(_):
    """Seconds and added peak memory of T samples for 64 images by 3Conv3FC, each T in a process of its own."""
    results = {}
    for count in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        for draws in ("weights", "local"):
            seconds, added = in_a_process("samples_of_one", f"{count} {draws}").split()[-2:]
            results.setdefault(count, {})[draws] = {"seconds": float(seconds), "bytes": int(added)}
    return results


def samples_of_one(_):
    """Prints seconds and added peak bytes for the number and kind of samples that the environment names."""
    count, draws = os.environ["BNN_MEASURE"].split()
    x = channels_last(torch.randn(64, 1, 32, 32))
    net = ours(ThreeConvThreeFC(), LRT())
    with torch.no_grad():
        net(x)  # makes the libraries load and allocate what they need
    before = resident_bytes("VmHWM")
    begin = time.perf_counter()
    Sampler(net, int(count), draws)(x)
    print(time.perf_counter() - begin, resident_bytes("VmHWM") - before)


def in_a_process(measurement, candidate):
    """What the measurement of one candidate prints in a process of its own."""
    environment = os.environ | {"BNN_MEASURE": candidate}
    command = [sys.executable, __file__, measurement]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


MEASUREMENTS = {
    "step": step,
    "predict": predict,
    "uncertainty": uncertainty,
    "samples": samples,
    "memory": memory,
    "epoch": epoch,
    "start": start,
    "growth": growth,
}
IN_A_PROCESS = {"memory_of_one": memory_of_one, "samples_of_one": samples_of_one}


def machine():
    """Processor, threads and versions."""
    processor = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    versions = {}
    for package in (*PACKAGES, "lightning-uq-box"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {"processor": processor, "threads": torch.get_num_threads(), "python": platform.python_version()} | versions


def table(results):
    """Prints the tables of docs/performance.md, then that of README.md."""
    measured = {key: record["found"] for key, record in json.loads(results.read_text()).items()}

    def cell(summary):
        return f"{summary['ratio']:.2f} ({summary['low']:.2f}-{summary['high']:.2f})"

    for key, title in (
        ("step", "training step"),
        ("step, default allocator", "training step, default allocator"),
        ("predict", "32 samples of 256 images"),
        ("uncertainty", "256 images with their uncertainty"),
    ):
        networks = measured[key].values()
        names = list(dict.fromkeys(name for by_name in networks for name in by_name))
        lines = [[name, *(cell(by_name[name]) if name in by_name else "-" for by_name in networks)] for name in names]
        rows.show(title, list(measured[key]), lines)
    peaks = measured["memory"].items()
    lines = [[name, f"{peak['bytes'] / 1e6:.0f} MB", f"{peak['ratio']:.2f}"] for name, peak in peaks]
    rows.show("added peak memory of a step, 3Conv3FC", ["", "over the twin's"], lines)
    for key, title in (("epoch", "LeNet LRT, 48,000 images"), ("start", "until help is there")):
        lines = [[name, f"{summary['seconds']:.2f} s", cell(summary)] for name, summary in measured[key].items()]
        rows.show(title, ["median", "ratio"], lines)
    steps, samples = measured["step"]["3Conv3FC"], measured["predict"]["3Conv3FC"]
    peers = {"BBB": "BBB", "Flipout": "Flipout", "LRT": "textbook LRT"}
    lines = []
    for method, ending in peers.items():
        ratios = {name: step["ratio"] for name, step in steps.items() if name.endswith(ending) and "ours" not in name}
        best = min(ratios, key=lambda name: ratios[name])
        own = [f"{steps[f'ours, {method}{suffix}']['ratio']:.2f}" for suffix in ("", ", compiled")]
        lines.append([f"training step, {method}", *own, f"{ratios[best]:.2f} ({best.removesuffix(f', {method}')})"])
    ratios = {name: sample["ratio"] for name, sample in samples.items() if "ours" not in name and name != TWIN}
    best = min(ratios, key=lambda name: ratios[name])
    own = [f"{samples[f'ours, LRT{suffix}']['ratio']:.2f}" for suffix in ("", ", compiled")]
    lines.append(["32 samples, LRT", *own, f"{ratios[best]:.2f} ({best})"])
    lines.append(["32 samples, weight draws", f"{samples['ours, weight draws']['ratio']:.2f}", "", ""])
    ways = {name: way["ratio"] for name, way in measured["uncertainty"]["3Conv3FC"].items()}
    best = min((name for name in ways if name.endswith("25 passes")), key=lambda name: ways[name])
    other = f"{ways[best]:.1f} ({best.removesuffix(', 25 passes')})"
    for way, peer in (("moments", ""), ("25 weight draws", other)):
        own = [f"{ways[f'ours, {way}{suffix}']:.1f}" for suffix in ("", ", compiled")]
        lines.append([f"uncertainty of 256 images, {way}", *own, peer])
    rows.show("3Conv3FC, times the deterministic twin", ["ours", "ours, compiled", "fastest other"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["all", "table", "figure", *IN_A_PROCESS, *MEASUREMENTS])
    parser.add_argument("--root", default=None, help="folder of MNIST")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--default_allocator", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    names = list(MEASUREMENTS) if arguments.what == ["all"] else arguments.what
    if names[0] == "table":
        table(RESULTS)
    elif names[0] in IN_A_PROCESS:
        IN_A_PROCESS[names[0]](arguments)
    else:
        measure(names, arguments)


def measure(names, arguments):
    """Runs measurements, adds each to results/speed.json, and draws docs/scaling.png where it is due."""
    tuned = not arguments.default_allocator and keep_freed_memory()
    for name in [name for name in names if name != "figure"]:
        begin = time.time()
        record = {"found": MEASUREMENTS[name](arguments), "seconds": round(time.time() - begin), "on": machine()}
        key = name if tuned else f"{name}, default allocator"
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(results | {key: record}, indent=1) + "\n")
        print(f"{key}: {record['seconds']} s", flush=True)
    if names in (["figure"], list(MEASUREMENTS)):
        import scaling

        scaling.draw(json.loads(RESULTS.read_text()), ROOT / "docs" / "scaling.png")


if __name__ == "__main__":
    main()
