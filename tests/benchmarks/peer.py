"""Ours beside TRL on the same work: `make bench`, or `.venv/bin/python tests/benchmarks/peer.py --help`.

Every measurement is a process of its own on the same core(s); the sides alternate; ratios are of neighbours. TRL runs
in each precision once, and from then on in the one that it was faster in. The first call makes TRL's environment.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from components.config.accelerate import torch_environment
from components.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CACHE = ROOT / ".venv" / ".bench"  # git ignores it
TRL = "trl==1.12.0"
WORKS = ("ppo", "ppo_eos", "sft", "reward_model", "dpo")
GROWTH = ((64, 48), (256, 48), (1024, 48), (64, 192), (64, 384))  # rollouts, response tokens


@dataclass(frozen=True)
class Options:
    """What is compared, on what, and how often."""

    sizes: tuple[str, ...]
    works: tuple[str, ...]
    precision: str
    device: str
    cores: tuple[int, ...]
    processes: int
    clock: str
    pairs: int
    updates: int
    trl_python: Path | None
    growth: bool
    out: Path


def trl_python() -> Path:
    """The Python of TRL's own environment, made if it is not there yet."""
    environment = CACHE / "trl"
    python, done = environment / "bin" / "python", environment / ".installed"
    if not done.exists():
        print(f"making an environment with {TRL} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        pinned = ["torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "click>=8.1", TRL]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned], check=True)
        done.touch()
    return python


def run(command: list[str], environments: list[dict[str, str]], cores: tuple[int, ...]) -> dict[str, Any]:
    """The JSON of one measurement, by a process for each environment; the first one tells it."""
    started = [
        subprocess.Popen(
            command,
            env=os.environ | environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        for environment in environments
    ]
    said = [process.communicate() for process in started]
    for process, (_, errors) in zip(started, said, strict=True):
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{errors[-3000:]}")
    result: dict[str, Any] = json.loads(said[0][0].strip().splitlines()[-1])
    return result


def environment_of(side: str, precision: str, device: str, threads: int) -> dict[str, str]:
    """Threads for both; what a stage's process is started with for ours alone."""
    common = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    if side == "trl":
        return common
    accelerate = {"ACCELERATE_USE_CPU": str(device == "cpu").lower()}
    accelerate["ACCELERATE_MIXED_PRECISION"] = "no" if precision == "float32" else precision
    return common | torch_environment(threads) | accelerate | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def ranks(count: int) -> list[dict[str, str]]:
    """For each of the processes that train together, the variables by which it finds the others."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def measure(side: str, work: str, size: str, precision: str, options: Options, *more: str) -> dict[str, Any]:
    python, script = (sys.executable, "ours.py")
    if side == "trl":
        python, script = str(options.trl_python or trl_python()), "trl_side.py"
    command = [python, str(HERE / script), "--folder", str(CACHE / size), "--size", size, "--precision", precision]
    command += ["--work", "ppo" if work == "ppo_eos" else work, "--eos", "on" if work == "ppo_eos" else "off"]
    command += ["--device", options.device, "--clock", "gpu" if options.device == "cuda" else options.clock]
    command += ["--updates", str(options.updates), *more]
    processes = options.processes if side == "ours" else 1
    environment = environment_of(side, precision, options.device, len(options.cores) // processes)
    found_by = ranks(processes) if processes > 1 else [{}]
    return run(command, [environment | rank for rank in found_by], options.cores)


def ratios_of(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """How many times as fast, or as small, ours is."""
    ratios = {"memory": theirs["peak_memory_mib"] / ours["peak_memory_mib"]}
    if "tokens_per_s" in ours:
        return ratios | {"tokens_per_s": ours["tokens_per_s"] / theirs["tokens_per_s"]}
    # Responses differ from side to side, and with an end token so do their lengths.
    tokens = ours["response_tokens"] / theirs["response_tokens"]
    parts = ("whole", "rollouts", "scoring", "updates")
    return ratios | {part: tokens * theirs[f"{part}_s"] / ours[f"{part}_s"] for part in parts}


def compare(work: str, size: str, options: Options) -> dict[str, Any]:
    """Pairs of measurements of one work at one size, and their ratios."""
    trial = {precision: measure("trl", work, size, precision, options) for precision in ("float32", "bf16")}
    key = "tokens_per_s" if "tokens_per_s" in trial["bf16"] else "whole_s"
    faster = max if key == "tokens_per_s" else min
    best = faster(trial, key=lambda precision: trial[precision][key])
    pairs = []
    for number in range(options.pairs):
        theirs = trial[best] if number == 0 else measure("trl", work, size, best, options)
        ours = measure("ours", work, size, options.precision, options)
        pairs.append({"ours": ours, "trl": theirs, "ratios": ratios_of(ours, theirs)})
        shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in pairs[-1]["ratios"].items())
        print(f"{work} {size}, pair {number + 1}: {shown}", flush=True)
    medians = {name: statistics.median(pair["ratios"][name] for pair in pairs) for name in pairs[0]["ratios"]}
    result = {"work": work, "size": size, "trl_precision": best, "trl_trial": trial, "pairs": pairs, "ratios": medians}
    print(f"{work} {size}, TRL in {best}, medians: " + ", ".join(f"{n} {r:.2f}" for n, r in medians.items()))
    ours = pairs[-1]["ours"]
    if "share_of_peak" in ours:
        print(
            f"{work} {size}, share of the matmul peak ({ours['peak_gflops_per_s']:.0f} GFLOP/s): "
            f"{ours['share_of_peak']:.0%}",
            flush=True,
        )
    return result


def check(size: str, options: Options) -> dict[str, Any]:
    """Our first step's value loss and gradient norms against plain Hugging Face in float32."""
    found = measure("ours", "ppo_eos", size, options.precision, options, "--check")
    tolerance = 1e-3 if options.precision == "float32" else 2e-2  # bfloat16 has 8 bits
    for name, pair in found.items():
        if name == "peak_memory_mib":
            continue
        off = abs(pair["ours"] / pair["plain_float32"] - 1)
        print(f"check {size}: {name} {pair['ours']:.5f}, plain float32 {pair['plain_float32']:.5f}, off by {off:.1e}")
        if not off <= tolerance:
            raise SystemExit(f"{name} is off by more than {tolerance}")
    return found


def growth(size: str, options: Options) -> list[dict[str, Any]]:
    """Our PPO update with more and longer rollouts: time and counted operations a response token, and memory."""
    rows: list[dict[str, Any]] = []
    for rollouts, tokens in GROWTH:
        more = ("--rollouts", str(rollouts), "--response-tokens", str(tokens))
        found = measure("ours", "ppo", size, options.precision, options, *more)
        responses = found["response_tokens"]
        row = {
            "rollouts": rollouts,
            "tokens": tokens,
            "ms_per_token": 1e3 * found["whole_s"] / responses,
            "update_gflop_per_token": found["update_gflops_per_s"] * found["updates_s"] / responses,
            "peak_memory_mib": found["peak_memory_mib"],
        }
        rows.append(row)
        time, work = (row[name] / rows[0][name] for name in ("ms_per_token", "update_gflop_per_token"))
        print(
            f"growth {size}, {rollouts} rollouts of {tokens} tokens: {row['ms_per_token']:.2f} ms a token "
            f"({time:.2f} of the first, operations {work:.2f}), {row['peak_memory_mib']:.0f} MiB",
            flush=True,
        )
    return rows


@click.command(help=__doc__)
@click.option(
    "--size", "sizes", type=click.Choice(["S", "M", "L"]), multiple=True, default=["S", "M"], show_default=True,
    help="This, --work and --core may be given several times.",
)  # fmt: skip
@click.option("--work", "works", type=click.Choice(WORKS), multiple=True, default=WORKS, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="bf16", show_default=True, help="Ours.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--core", "cores", type=int, multiple=True, default=[0], show_default=True, help="Which cores; a thread for each."
)
@click.option("--processes", default=1, show_default=True, help="Of ours, which share the cores; TRL has threads.")
@click.option(
    "--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True,
    help="cpu: on a busy machine, one core.",
)  # fmt: skip
@click.option("--pairs", default=3, show_default=True)
@click.option("--updates", default=2, show_default=True, help="After one to warm up.")
@click.option("--trl-python", type=click.Path(path_type=Path), help="A Python that has TRL; by default one is made.")
@click.option("--growth", is_flag=True, help="Also measure more and longer rollouts, ours alone.")
@click.option("--out", type=click.Path(path_type=Path), default=CACHE / "peer.json")
def main(**given: Any) -> None:
    """Check ours, compare it with TRL, and write what was found."""
    options = Options(**given)
    for size in options.sizes:
        if not (CACHE / size / "prompts.json").exists():
            (CACHE / size).mkdir(parents=True, exist_ok=True)
            make = f"import workload, pathlib; workload.make(pathlib.Path({str(CACHE / size)!r}), {size!r})"
            subprocess.run([sys.executable, "-c", make], cwd=HERE, check=True)
    results = {
        "options": {name: str(value) for name, value in vars(options).items()},
        "checks": {size: check(size, options) for size in options.sizes},
        "comparisons": [compare(work, size, options) for size in options.sizes for work in options.works],
    }
    if options.growth:
        results["growth"] = {size: growth(size, options) for size in options.sizes}
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
