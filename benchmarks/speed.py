"""Time and memory of training steps, predictions and epochs: ours, the deterministic twin and other libraries.

All candidates of a measurement take turns in one process, so that what else the machine does meets them alike. A ratio
is the median over turns of a candidate's seconds over the twin's in the same turn; beside it stand the quartiles. The
twin is the same network in plain torch layers, as torch has them: eager, NCHW memory.

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


def ours(net, method, compiled=False):
    made = net if method is None else bayesianize(net, method)
    made.to(memory_format=torch.channels_last)
    for layer in bayesian_layers(made):
        layer.compiles = compiled
    return made


def own_candidates(make):
    """Name, network, KL and whether images come in channels_last memory."""
    found = {"our twin, channels_last": (ours(make(), None), None, True)}
    for method in (BBB(), Flipout(), LRT()):
        for compiled in (False, True):
            net = ours(make(), method, compiled)
            name = f"ours, {type(method).__name__}{', compiled' if compiled else ''}"
            found[name] = (net, lambda net=net: kl(net), True)
    return found


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
    """Seconds of each turn of each candidate; the first call's seconds, which hold what is compiled."""
    first = {}
    for name, run in candidates.items():
        start = time.perf_counter()
        run()
        first[name] = time.perf_counter() - start
        for _ in range(warm_up):
            run()
    seconds = {name: [] for name in candidates}
    for _ in range(turns):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds, first


def summarised(seconds, twin=TWIN):
    found = {}
    for name, times in seconds.items():
        ratios = [mine / other for mine, other in zip(times, seconds[twin], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {"seconds": statistics.median(times), "ratio": middle, "low": low, "high": high}
    return found


def step(arguments):
    """A training step: forward, loss with KL, backward, fused Adam; batch 256, 1x32x32."""
    found = {}
    x, labels = torch.randn(256, 1, 32, 32), torch.randint(0, 10, (256,))
    for name, make in NETWORKS.items():
        candidates = {TWIN: training_step(make(), None, x, labels)}
        for title, (net, divergence, is_last) in own_candidates(make).items():
            candidates[title] = training_step(net, divergence, channels_last(x) if is_last else x, labels)
        for title, build in PEERS.items():
            if (made := installed(build, make())) is not None:
                candidates[title] = training_step(*made, x, labels)
        seconds, first = take_turns(candidates, arguments.turns * (1 if name == "3Conv3FC" else 3))
        found[name] = summarised(seconds)
        for title in candidates:
            found[name][title]["first_call"] = first[title]
    return found


def installed(build, net):
    try:
        return build(net)
    except ImportError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None


def forwards(net, x, count):
    net.eval()

    @torch.no_grad()
    def run():
        for _ in range(count):
            net(x)

    return run


def predict(arguments):
    """32 samples for 256 images, in units of 32 forward passes of the twin."""
    found = {}
    x = torch.randn(256, 1, 32, 32)
    for name, make in NETWORKS.items():
        candidates = {TWIN: forwards(make(), x, 32)}
        for compiled in (False, True):
            net, mark = ours(make(), LRT(), compiled), ", compiled" if compiled else ""
            # A new sampler each time, so that drawing the weights counts; test draws them once for all batches.
            if not compiled:
                candidates["ours, weight draws"] = lambda net=net: Sampler(net, 32, "weights")(channels_last(x))
                kept = Sampler(net, 32, "weights")
                candidates["ours, weight draws, later batches"] = lambda kept=kept: kept(channels_last(x))
            candidates[f"ours, LRT{mark}"] = lambda net=net: Sampler(net, 32, "local")(channels_last(x))
        for title in ("textbook LRT", "bayesian-torch, Flipout", "lightning-uq-box, Flipout"):
            if (made := installed(PEERS[title], make())) is not None:
                candidates[title] = forwards(made[0], x, 32)
        found[name] = summarised(take_turns(candidates, max(3, arguments.turns // 3), warm_up=0)[0])
    return found


def memory(arguments):
    """The most bytes that tensors take during a step of 3Conv3FC beyond those before it, as torch counts them."""
    names = [TWIN, "our twin, channels_last", "ours, BBB", "ours, LRT", "ours, LRT, compiled", "textbook LRT"]
    found = {}
    for name in names:
        found[name] = {"bytes": int(in_a_process("memory_of_one", name).split()[-1])}
    for one in found.values():
        one["ratio"] = one["bytes"] / found[TWIN]["bytes"]
    return found


def memory_of_one(_):
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
    taken = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            taken += event.nbytes()
            peak = max(peak, taken)
    print(peak)


def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def epoch(arguments):
    """LeNet LRT over 48,000 MNIST images: ``bnn fit`` without validation, and a pipeline as it is commonly written."""
    import epochs

    candidates = epochs.candidates(arguments.root)
    seconds, _ = take_turns(candidates, max(3, arguments.turns // 5), warm_up=0)
    return summarised(seconds, twin=epochs.COMMON)


def start(arguments):
    """Seconds until help is on the screen."""
    bnn = str(Path(sys.executable).with_name("bnn"))
    commands = {
        "import lightning.pytorch": [sys.executable, "-c", "import lightning.pytorch"],
        "bnn --help": [bnn, "--help"],
        "bnn fit --help": [bnn, "fit", "--help"],
    }
    candidates = {
        name: lambda words=words: subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
        for name, words in commands.items()
    }
    return summarised(take_turns(candidates, max(7, arguments.turns // 2), warm_up=1)[0], "import lightning.pytorch")


def growth(arguments):
    """How the cost of a step grows: batch, width, threads."""
    found = {"batch": {}, "width": {}, "threads": {}}

    def against_the_twin(make, batch, channels, turns):
        x, labels = torch.randn(batch, channels, 32, 32), torch.randint(0, 10, (batch,))
        candidates = {TWIN: training_step(make(), None, x, labels)}
        for name in ("ours, BBB", "ours, LRT", "ours, LRT, compiled"):
            net, divergence, _ = own_candidates(make)[name]
            candidates[name] = training_step(net, divergence, channels_last(x), labels)
        return summarised(take_turns(candidates, turns, warm_up=2)[0])

    for batch in (64, 256, 1024, 4096):
        found["batch"][batch] = against_the_twin(LeNet, batch, 1, 9)
    for scale in (1, 2, 4):
        found["width"][scale] = against_the_twin(lambda scale=scale: CIFARNet(scale=scale), 256, 3, 9)
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        found["threads"][count] = against_the_twin(ThreeConvThreeFC, 256, 1, 7)
    torch.set_num_threads(threads)
    return found


def samples(_):
    """Seconds and added peak memory of T samples of 64 images by 3Conv3FC, each in a process of its own."""
    found = {}
    for count in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        for draws in ("weights", "local"):
            seconds, added = in_a_process("samples_of_one", f"{count} {draws}").split()[-2:]
            found.setdefault(count, {})[draws] = {"seconds": float(seconds), "bytes": int(added)}
    return found


def samples_of_one(_):
    count, draws = os.environ["BNN_MEASURE"].split()
    x = channels_last(torch.randn(64, 1, 32, 32))
    net = ours(ThreeConvThreeFC(), LRT())
    with torch.no_grad():
        net(x)  # has the libraries load what they need
    before = resident("VmHWM")
    begin = time.perf_counter()
    Sampler(net, int(count), draws)(x)
    print(time.perf_counter() - begin, resident("VmHWM") - before)


def in_a_process(measurement, what):
    environment = os.environ | {"BNN_MEASURE": what}
    words = [sys.executable, __file__, measurement]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout


MEASUREMENTS = {
    "step": step,
    "predict": predict,
    "samples": samples,
    "memory": memory,
    "epoch": epoch,
    "start": start,
    "growth": growth,
}
ONE = {"memory_of_one": memory_of_one, "samples_of_one": samples_of_one}


def surroundings():
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
    found = {key: record["found"] for key, record in json.loads(results.read_text()).items()}

    def cell(one):
        return f"{one['ratio']:.2f} ({one['low']:.2f}-{one['high']:.2f})"

    for key, title in (
        ("step", "training step"),
        ("step, default allocator", "training step, default allocator"),
        ("predict", "32 samples of 256 images"),
    ):
        names = list(dict.fromkeys(name for one in found[key].values() for name in one))
        lines = [[name, *(cell(one[name]) if name in one else "-" for one in found[key].values())] for name in names]
        rows.show(title, list(found[key]), lines)
    lines = [[name, f"{one['bytes'] / 1e6:.0f} MB", f"{one['ratio']:.2f}"] for name, one in found["memory"].items()]
    rows.show("added peak memory of a step, 3Conv3FC", ["", "over the twin's"], lines)
    for key, title in (("epoch", "LeNet LRT, 48,000 images"), ("start", "until help is there")):
        lines = [[name, f"{one['seconds']:.2f} s", cell(one)] for name, one in found[key].items()]
        rows.show(title, ["median", "ratio"], lines)
    steps, samples = found["step"]["3Conv3FC"], found["predict"]["3Conv3FC"]
    peers = {"BBB": "BBB", "Flipout": "Flipout", "LRT": "textbook LRT"}
    lines = []
    for method, ending in peers.items():
        others = {name: one["ratio"] for name, one in steps.items() if name.endswith(ending) and "ours" not in name}
        best = min(others, key=lambda name: others[name])
        mine = [f"{steps[f'ours, {method}{mark}']['ratio']:.2f}" for mark in ("", ", compiled")]
        lines.append([f"training step, {method}", *mine, f"{others[best]:.2f} ({best.removesuffix(f', {method}')})"])
    rest = {name: one["ratio"] for name, one in samples.items() if "ours" not in name and name != TWIN}
    best = min(rest, key=lambda name: rest[name])
    local = [f"{samples[f'ours, LRT{mark}']['ratio']:.2f}" for mark in ("", ", compiled")]
    lines.append(["32 samples, LRT", *local, f"{rest[best]:.2f} ({best})"])
    lines.append(["32 samples, weight draws", f"{samples['ours, weight draws']['ratio']:.2f}", "", ""])
    rows.show("3Conv3FC, times the deterministic twin", ["ours", "ours, compiled", "fastest other"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", choices=["all", "table", "figure", *ONE, *MEASUREMENTS])
    parser.add_argument("--root", default=None, help="folder of MNIST")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--default_allocator", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    asked = list(MEASUREMENTS) if arguments.what == ["all"] else arguments.what
    if asked[0] == "table":
        table(RESULTS)
    elif asked[0] in ONE:
        ONE[asked[0]](arguments)
    else:
        measure(asked, arguments)


def measure(asked, arguments):
    tuned = not arguments.default_allocator and keep_freed_memory()
    for name in [name for name in asked if name != "figure"]:
        begin = time.time()
        record = {"found": MEASUREMENTS[name](arguments), "seconds": round(time.time() - begin), "on": surroundings()}
        key = name if tuned else f"{name}, default allocator"
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps(known | {key: record}, indent=1) + "\n")
        print(f"{key}: {record['seconds']} s", flush=True)
    if asked in (["figure"], list(MEASUREMENTS)):
        import scaling

        scaling.draw(json.loads(RESULTS.read_text()), ROOT / "docs" / "scaling.png")


if __name__ == "__main__":
    main()
