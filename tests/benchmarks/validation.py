"""What the stage data_validation takes on many comparisons: CPU time and memory of the whole stage.

    python -m tests.benchmarks.validation make DATA.jsonl WORLD --pairs 170000
    python -m tests.benchmarks.validation run WORLD

`make` repeats the pairs of a file (prompt, chosen, rejected), every copy with one other word in each of its texts, so
that nearly all rows nearly repeat an earlier one: the hardest case for the search for near duplicates.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import random
import resource
import tempfile
import time
from pathlib import Path

import click

LIMITS = {"max_prompt_characters": 20_000, "max_response_characters": 20_000, "max_reject_fraction": 0.9}
TEMPLATE = (
    "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"  # of a scratch model: unread here
)
TEXTS = ("prompt", "chosen", "rejected")


@click.group()
def main() -> None:
    """Measure data_validation."""


@main.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("world", type=click.Path(path_type=Path))
@click.option("--pairs", default=170_000)
def make(source: Path, world: Path, pairs: int) -> None:
    """Write WORLD/data/comparisons.jsonl from the pairs of SOURCE."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    draw = random.Random(0)
    (world / "data").mkdir(parents=True)
    with (world / "data/comparisons.jsonl").open("w", encoding="utf-8") as file:
        for number in range(pairs):
            copy, place = divmod(number, len(rows))
            row = rows[place] | {"id": f"{number}"}
            for name in TEXTS if copy else ():
                words = row[name].split(" ")
                words[draw.randrange(len(words))] += f"x{copy}"
                row[name] = " ".join(words)
            file.write(json.dumps(row) + "\n")


@main.command()
@click.argument("world", type=click.Path(exists=True, path_type=Path))
@click.option("--profile", is_flag=True, help="What takes the time, by function; everything is slower with it.")
def run(world: Path, profile: bool) -> None:
    """Validate WORLD/data into WORLD/artifacts and print what it took. Units: seconds of CPU, GB (1e9 bytes)."""
    params_file = Path("params.yaml").absolute()
    os.chdir(world)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tempfile.mkdtemp()}/mlflow.db"
    from components.config import load_params
    from components.place import Place
    from components.stages import perform

    params = load_params(params_file)
    model = params.language_model.model_copy(update={"chat_template": TEMPLATE, "prompt_template": None})
    limits = params.data_validation.model_copy(update=LIMITS)
    params = params.model_copy(update={"data_validation": limits, "language_model": model})
    profiler = cProfile.Profile()
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    if profile:
        profiler.enable()
    perform("data_validation", params, Place())
    if profile:
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
    after = resource.getrusage(resource.RUSAGE_SELF)
    took = {
        "user_s": round(after.ru_utime - before.ru_utime, 1),
        "system_s": round(after.ru_stime - before.ru_stime, 1),
        "wall_s": round(time.perf_counter() - began, 1),
        "peak_gb": round(after.ru_maxrss * 1024 / 1e9, 2),
    }
    click.echo(json.dumps(took))


if __name__ == "__main__":
    main()
