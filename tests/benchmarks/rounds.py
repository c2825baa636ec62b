"""Labels spent in rounds, on the answers of the policy as it becomes, against as many spent once, on the SFT policy's.

`python -m tests.benchmarks.rounds --out FOLDER` makes two projects of the shipped world a seed, which begin with its
first comparisons alone, and runs `proximal iterate` in both: R rounds of one cycle each, or one round of R cycles. Both
are given as many comparisons by the simulated annotators, and as many iterations of PPO.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
IN_ROUNDS, ONCE = "in rounds", "once"


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Where all is kept: the same command goes on."
)
@click.option("--seed", "seeds", type=int, multiple=True, default=(1, 2, 3), show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--comparisons", default=300, show_default=True, help="Of a round.")
@click.option("--first", default=2000, show_default=True, help="How many of the shipped comparisons there are before.")
@click.option("--from", "source", default="champion", show_default=True, help="As of `proximal iterate`.")
@click.option("--at-once", default=2, show_default=True, help="How many seeds run side by side.")
def main(
    out: Path, seeds: tuple[int, ...], rounds: int, comparisons: int, first: int, source: str, at_once: int
) -> None:
    """Measure, and print a table."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    def measure(seed: int) -> dict[str, list[dict[str, Any]]]:
        # The second project takes the SFT policy and the first scorers out of the cache.
        return {
            IN_ROUNDS: _iterate(_project(out, seed, f"rounds-{source}", 1, first), rounds, comparisons, source),
            ONCE: _iterate(_project(out, seed, "once", rounds, first), 1, rounds * comparisons, source),
        }

    with ThreadPoolExecutor(at_once) as pool:
        found = dict(zip(seeds, pool.map(measure, seeds), strict=True))
    (out / f"{source}.json").write_text(json.dumps(found, indent=2))
    click.echo(table(found, source))


def table(found: dict[int, dict[str, list[dict[str, Any]]]], source: str) -> str:
    """Gold on held-out prompts, mean [95 % interval by prompt], and KL to the SFT policy, in Markdown.

    What the rounds came to is the last policy that a further one would go on from.
    """
    rounds = max(len(arms[IN_ROUNDS]) for arms in found.values())
    header = ["seed", "SFT", *(f"round {number}" for number in range(1, rounds + 1)), "once", "rounds - once", "KL"]
    lines = [header, ["---"] * len(header)]
    for seed, arms in found.items():
        every, [once] = arms[IN_ROUNDS], arms[ONCE]
        last = _present(every, source)
        gap = _mean(last) - _mean(once)
        kls = ", ".join(f"{each['evaluation']['candidate']['kl']['mean']:.2f}" for each in (last, once))
        labels = f"{sum(each['rows'] for each in every)} and {once['rows']} labels"
        cells = [_cell(once["evaluation"]["sft"]["gold"]), *(_gated(each) for each in every), _gated(once)]
        lines.append([f"{seed} ({labels})", *cells, f"{gap:+.3f}", kls])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _present(every: list[dict[str, Any]], source: str) -> dict[str, Any]:
    crowned = [each for each in every if each["decision"] == "promoted"]
    return crowned[-1] if crowned and source == "champion" else every[-1]


def _mean(known: dict[str, Any]) -> float:
    return float(known["evaluation"]["candidate"]["gold"]["mean"])


def _gated(known: dict[str, Any]) -> str:
    refused = "" if known["decision"] == "promoted" else f" ({known['decision']})"
    return _cell(known["evaluation"]["candidate"]["gold"]) + refused


def _cell(figure: dict[str, float]) -> str:
    return f"{figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _project(out: Path, seed: int, arm: str, cycles: int, first: int) -> Path:
    """A clone with params and data of its own, committed."""
    folder = out / f"{seed}-{arm}"
    if (folder / ".git" / "made").exists():
        return folder
    if folder.exists():
        shutil.rmtree(folder)
    _run(out, "git", "clone", "--quiet", str(ROOT), str(folder))
    _run(folder, "git", "config", "user.name", "Benchmark")
    _run(folder, "git", "config", "user.email", "benchmark@localhost")
    _run(folder, sys.executable, "-m", "dvc", "remote", "remove", "--quiet", _remote(folder))
    _run(folder, sys.executable, "-m", "dvc", "cache", "dir", "--local", str(out / "cache"))
    params = YAML().load(folder / "params.yaml")
    params["seed"] = seed
    params["cycles"] = {str(k): {"start": _before(k)} for k in range(1, cycles + 1)}
    params["promotion"]["registered_model"] = f"policy-{arm}"  # a seed's two projects have one store
    YAML().dump(params, folder / "params.yaml")
    (folder / "data").mkdir()
    for file in sorted((ROOT / "data").iterdir()):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = lines[:first] if file.stem == "comparisons" else lines
        (folder / "data" / file.name).write_text("".join(kept), encoding="utf-8")
    _run(folder, sys.executable, "-m", "dvc", "add", "--quiet", "data")
    _run(folder, "git", "commit", "--quiet", "--all", "--message", f"seed {seed}, {arm}")
    (folder / ".git" / "made").touch()
    return folder


def _before(cycle: int) -> str:
    return "artifacts/sft" if cycle == 1 else f"artifacts/alignment/{cycle - 1}"


def _remote(folder: Path) -> str:
    return _run(folder, sys.executable, "-m", "dvc", "remote", "list").split()[0]


def _iterate(project: Path, rounds: int, comparisons: int, source: str) -> list[dict[str, Any]]:
    shared = project.parent / project.name.partition("-")[0]  # of the seed: databases take long to make
    shared.mkdir(exist_ok=True)
    own = {"PREFECT_HOME": str(shared / "prefect"), "MLFLOW_TRACKING_URI": f"sqlite:///{shared / 'mlflow.db'}"}
    command = [sys.executable, "-m", "flows.cli", "iterate", "--annotators", "simulated"]
    command += ["--rounds", str(rounds), "--comparisons", str(comparisons), "--from", source]
    with (project.parent / f"{project.name}.log").open("a") as log:
        environment = {**os.environ, **own, "PYTHONPATH": str(project)}
        environment.pop("PREFECT_API_URL", None)
        subprocess.run(command, cwd=project, env=environment, stdout=log, stderr=log, check=True)
    found: list[dict[str, Any]] = json.loads((project / "rounds" / "rounds.json").read_text())
    return found


def _run(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
