"""What an MLflow server that is away, and one that is there, cost a run: `python tests/benchmarks/outage.py --help`.

    python tests/benchmarks/outage.py away --seconds 60
    python tests/benchmarks/outage.py prefect --seconds 60
    python tests/benchmarks/outage.py ratio --times 3

The pipeline is that of the drill of kills (`tests/flows/small_world.py`), the server MLflow's on PostgreSQL. `away`
runs it once undisturbed, told to a database in a file, and once told to the server, which is killed (SIGKILL) in SFT
and again in PPO, and started anew each time after so many seconds. A stage stands still where the times of its points
have a gap: they are noted where the step is done, whoever hears of it and when. `prefect` does the same once to
Prefect's server, in SFT of a deployed run, and looks how long after its return the run's state says how the work ended.
`ratio` runs the same small pipeline told to the one store and the other in turn; on a machine that has other work, the
median says more than any of them, and the seconds of processor that all processes of the run took more than the clock.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "flows")]

from real_servers import Server, mlflow_on_postgres  # noqa: E402
from service import ENDED, served  # noqa: E402
from small_world import environment, make_world, start  # noqa: E402

LONG = {"sft.epochs": 400, "policy_gradient.iterations_per_cycle": 300}  # each outlasts an outage
PACED = {"sft": "step", "alignment-1": "iteration"}  # of these stages' runs, what each point of train/ is of
Point = tuple[str, str, int, float]  # run, metric, step, value


@dataclass(frozen=True)
class Told:
    """What a tracking store knows after a run: every point, when each step was done, how and when the runs ended."""

    points: Counter[Point]
    times: dict[str, list[float]]
    statuses: dict[str, str]
    ended: float

    @classmethod
    def of(cls, uri: str) -> Told:
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        points: Counter[Point] = Counter()
        times: dict[str, list[float]] = {}
        statuses: dict[str, str] = {}
        ended = 0.0
        for run in client.search_runs([client.get_experiment_by_name("proximal").experiment_id]):
            name = run.info.run_name if run.data.tags.get("stage") != "pipeline" else "pipeline"
            statuses[name] = run.info.status
            ended = max(ended, (run.info.end_time or 0) / 1000)
            for metric in run.data.metrics:
                history = client.get_metric_history(run.info.run_id, metric)
                if name in PACED and metric.startswith("train/"):
                    times[name] = sorted({*times.get(name, ()), *(point.timestamp / 1000 for point in history)})
                if not _is_of_a_clock(metric):
                    points.update((name, point.key, point.step, point.value) for point in history)
        return cls(points, times, statuses, ended)


def _is_of_a_clock(metric: str) -> bool:
    return metric.startswith("system/") or "second" in metric


def largest_gap(times: list[float], since: float = 0.0, until: float = float("inf")) -> float:
    """Seconds between two neighbours of which the later one is after `since`, the earlier one before `until`."""
    pairs = zip(times, times[1:], strict=False)
    return max(later - earlier for earlier, later in pairs if later > since and earlier < until)


def run(folder: Path, home: Path, uri: str, meanwhile: Callable[[Path], None] = lambda log: None) -> tuple[float, str]:
    """`proximal run` in a project; its seconds and what it said."""
    log = folder.with_suffix(".log")
    began = time.perf_counter()
    process = start(folder, home, log, {"MLFLOW_TRACKING_URI": uri})
    meanwhile(log)
    status = process.wait()
    seconds = time.perf_counter() - began
    assert status == 0, log.read_text()[-3000:]
    return seconds, log.read_text()


def digests(folder: Path) -> dict[str, str]:
    """Of all that the stages made."""
    from components.digests import digest

    made = folder / "artifacts"
    return {each: digest(made / each) for each in ("sft/policy", "alignment/1/policy", "selection/policy")}


@click.group()
def main() -> None:
    """Measure."""


@main.command()
@click.option("--seconds", default=60.0, show_default=True)
def away(seconds: float) -> None:
    """A run whose MLflow server is killed twice, beside an undisturbed one."""
    scratch = Path(tempfile.mkdtemp(prefix="proximal-outage-"))
    try:
        made = make_world(scratch / "made", LONG).folder
        plain, disturbed = (Path(shutil.copytree(made, scratch / name)) for name in ("plain", "disturbed"))
        file = f"sqlite:///{scratch}/mlflow.db"
        took, _ = run(plain, scratch / "home", file)
        expected = Told.of(file)
        outages: dict[str, tuple[float, float]] = {}
        with mlflow_on_postgres(scratch) as (server, uri):

            def kill_twice(log: Path) -> None:
                for name, step in PACED.items():
                    has_begun = re.compile(rf"\b{step} [1-9]\d* of ")
                    _wait_for(lambda: has_begun.search(log.read_text()))  # noqa: B023
                    outages[name] = _outage(server, seconds)

            took_disturbed, said = run(disturbed, scratch / "home", uri, kill_twice)
            found = Told.of(uri)
        click.echo("\n".join(line for line in said.splitlines() if "warning: " in line or "MLflow" in line))
        for name, (gone, back) in outages.items():
            within = [at for at in found.times[name] if gone < at < back]
            click.echo(
                json.dumps(
                    {
                        "stage": name,
                        "server_away_s": round(back - gone, 1),
                        "points_told_meanwhile": len(within),
                        "longest_standstill_s": round(largest_gap(found.times[name], gone, back), 2),
                        "longest_standstill_undisturbed_s": round(largest_gap(expected.times[name]), 2),
                        "stage_outlasted_the_outage": found.times[name][-1] > back,
                    }
                )
            )
        click.echo(
            json.dumps(
                {
                    "points": sum(expected.points.values()),
                    "lost": sum((expected.points - found.points).values()),
                    "doubled_or_other": sum((found.points - expected.points).values()),
                    "statuses": found.statuses,
                    "same_bytes": digests(plain) == digests(disturbed),
                    "run_s": round(took, 1),
                    "run_disturbed_s": round(took_disturbed, 1),
                }
            )
        )
    finally:
        shutil.rmtree(scratch)


@main.command()
@click.option("--seconds", default=60.0, show_default=True)
def prefect(seconds: float) -> None:
    """A deployed run whose Prefect server is killed in SFT."""
    scratch = Path(tempfile.mkdtemp(prefix="proximal-outage-"))
    try:
        made = make_world(scratch / "made", {"sft.epochs": 150}).folder  # it says how far it is
        file = f"sqlite:///{scratch}/mlflow.db"
        with served(_prefect_database(scratch / "empty"), scratch / "home", MLFLOW_TRACKING_URI=file) as service:
            deployment = service.deploy(repository=str(made), revision="HEAD", promotion=True)
            worker, log = service.worker(), service.home / "worker.log"
            try:
                run = service.start_run(deployment)
                _wait_for(lambda: re.search(r"\bstep [1-9]\d* of ", log.read_text()))
                gone, back = _outage(service.server, seconds)
                _wait_for(lambda: service.state(run)["type"] in ENDED)
            finally:
                worker.kill()
                worker.wait()
            state = service.state(run)
        told, ended = Told.of(file), datetime.fromisoformat(state["timestamp"]).timestamp()
        click.echo(
            json.dumps(
                {
                    "server_away_s": round(back - gone, 1),
                    "longest_standstill_of_sft_s": round(largest_gap(told.times["sft"]), 2),
                    "work_ended_after_return_s": round(told.ended - back, 1),
                    "state": state["name"],
                    "state_after_work_and_return_s": round(ended - max(told.ended, back), 1),
                    "mlflow": told.statuses,
                }
            )
        )
    finally:
        shutil.rmtree(scratch)


def _prefect_database(home: Path) -> Path:
    """One without runs."""
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env=environment(home), check=True, capture_output=True)
    return home / "prefect.db"


@main.command()
@click.option("--times", default=3, show_default=True)
def ratio(times: int) -> None:
    """The seconds of one small run told to a server over those of the same told to a database in a file."""
    scratch = Path(tempfile.mkdtemp(prefix="proximal-outage-"))
    try:
        made = make_world(scratch / "made").folder
        seconds: dict[str, list[float]] = {"file": [], "server": []}
        processor: dict[str, list[float]] = {"file": [], "server": []}
        with mlflow_on_postgres(scratch) as (_, uri):
            run(Path(shutil.copytree(made, scratch / "first")), scratch / "home", uri)  # makes the databases
            for number in range(times):
                for store in ("file", "server") if number % 2 == 0 else ("server", "file"):
                    folder = Path(shutil.copytree(made, scratch / f"{store}{number}"))
                    told = uri if store == "server" else f"sqlite:///{folder}/mlflow.db"
                    before = _processor_seconds()
                    seconds[store].append(run(folder, scratch / "home", told)[0])
                    processor[store].append(_processor_seconds() - before)
                    shutil.rmtree(folder)
        for what, measured in (("seconds", seconds), ("processor", processor)):
            rounded = {store: [round(each, 1) for each in all_] for store, all_ in measured.items()}
            ratio = statistics.median(measured["server"]) / statistics.median(measured["file"])
            click.echo(json.dumps({"what": what, **rounded, "ratio": round(ratio, 3)}))
    finally:
        shutil.rmtree(scratch)


def _processor_seconds() -> float:
    """Of all processes that have ended below this one; the servers have not."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 1800
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _outage(server: Server, seconds: float) -> tuple[float, float]:
    """Kill a server for so long; when it was killed, and when it answered again."""
    server.kill()
    gone = time.time()
    time.sleep(seconds)
    server.start()
    return gone, time.time()


if __name__ == "__main__":
    main()
