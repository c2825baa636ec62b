"""Kills drawn from a seed, of every process of a run and in every phase of it: nothing of a run is lost or left.

`make drill` takes ten times as many.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest
import small_world
from kill_aims import ENDS_NOTHING, ENDS_THE_RUN, ENDS_THE_STAGE, PHASES, draw
from kill_drill import Chain
from real_servers import Server, mlflow

KILLS = int(os.environ.get("PROXIMAL_KILLS", "30"))
# Of three kills two are in stages of one process, which tell MLflow's server of their work, and one is in those of two
# ranks, which write into a file; a chain has so many at most.
LONGEST = {1: 20, 2: 10}
SHARES = {1: KILLS - KILLS // 3, 2: KILLS // 3}
CHAINS = [
    (ranks, min(longest, SHARES[ranks] - begun), 1 + begun // longest)
    for ranks, longest in LONGEST.items()
    for begun in range(0, SHARES[ranks], longest)
]
OF_ONE_PROCESS = ("system/", "check/")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Callable[[int], tuple[Path, Path]]:
    """By the number of ranks: a project in which nothing has run, and one in which all has."""

    @cache
    def made(ranks: int) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
        config = "infra/accelerate/cpu_two_processes.yaml" if ranks == 2 else "infra/accelerate/cpu.yaml"
        small_world.make_world(folder / "new", {"compute.accelerate_config": config})
        shutil.copytree(folder / "new", folder / "whole", symlinks=True)
        Chain(folder / "whole", home_with(prefect_database, folder / "home")).run([])
        return folder / "new", folder / "whole"

    return made


def home_with(prefect_database: Path, home: Path) -> Path:
    """A place for Prefect's records with a database: making one takes long."""
    home.mkdir()
    shutil.copy(prefect_database, home / "prefect.db")
    return home


@contextmanager
def tracking(folder: Path, ranks: int) -> Iterator[tuple[Server, str] | None]:
    """What a chain tells of its work: MLflow's server; with two ranks a file. Either has the same database."""
    if ranks > 1:
        yield None
        return
    files = folder.parent / "mlflow"
    files.mkdir()
    with mlflow(f"sqlite:///{folder}/mlflow.db", files) as started:
        yield started


def points(project: Path) -> dict[str, list[Counter[tuple[str, int, float]]]]:
    """Of the MLflow runs of each stage that ended well: every point with how often it is there.

    Left out are clocks', the checks' (a process that goes on tells what it checks itself, and the largest so far; what
    the cycle checked is in checks.json, whose bytes are compared) and a registered model's own (of the run that made
    it, which may be one that was killed right after).
    """
    found: dict[str, dict[str, Counter[tuple[str, int, float]]]] = {}
    with sqlite3.connect(project / "mlflow.db") as records:
        ended = "FROM runs JOIN tags USING (run_uuid) WHERE tags.key = 'stage' AND status = 'FINISHED'"
        for run, stage in records.execute(f"SELECT run_uuid, tags.value {ended} AND tags.value <> 'pipeline'"):
            of_run = "WHERE run_uuid = ? AND key NOT IN (SELECT metric_name FROM logged_model_metrics)"
            told = records.execute(f"SELECT key, step, value FROM metrics {of_run}", [run])
            kept = [point for point in told if "second" not in point[0] and not point[0].startswith(OF_ONE_PROCESS)]
            found.setdefault(stage, {})[run] = Counter(kept)
    return {stage: list(runs.values()) for stage, runs in found.items()}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("ranks", "kills", "seed"), CHAINS)
def test_nothing_is_lost_and_nothing_is_left(
    undisturbed: Callable[[int], tuple[Path, Path]],
    prefect_database: Path,
    tmp_path: Path,
    ranks: int,
    kills: int,
    seed: int,
) -> None:
    new, whole = undisturbed(ranks)
    folder = Path(shutil.copytree(new, tmp_path / "chain", symlinks=True))
    with tracking(folder, ranks) as server:
        chain = Chain(folder, home_with(prefect_database, tmp_path / "home"), server)
        try:
            chain.run(draw(seed, kills, ranks=ranks if ranks > 1 else 0, mlflow=ranks == 1))
        finally:
            for process in chain.processes():
                process.kill()
    assert len(chain.kills) >= 2 * kills / 3, chain.words()

    # Runs ended early for no other reason than a kill of their own, or a second one of a stage.
    for number, status in enumerate(chain.statuses, start=1):
        of_it = [kill for kill in chain.kills if kill.run == number]
        twice = [
            stage for stage, met in Counter(k.stage for k in of_it if k.aim.role not in ENDS_NOTHING).items() if met > 1
        ]
        assert status == 0 or twice or any(kill.aim.role in ENDS_THE_RUN for kill in of_it), chain.words()

    # The bytes of a run that nothing disturbed, and each finished stage ran once.
    assert (folder / "dvc.lock").read_text() == (whole / "dvc.lock").read_text()
    for kill in chain.kills:
        assert not kill.committed & chain.ran_after(kill), f"{kill}\n{chain.words()}"

    # What was stored was gone on from after every kill, but where it was killed again before it said so.
    ended = [kill for kill in chain.kills if kill.aim.role not in ENDS_NOTHING]
    for stage in {kill.stage for kill in ended}:
        went_on = chain.went_on(stage)
        assert went_on == sorted(went_on), chain.words()
        stored = [kill.done for kill in ended if kill.stage == stage and stage not in kill.committed]
        for done, _ in groupby(filter(None, stored)):
            assert any(found >= done for found in went_on), f"{stage} after {done}\n{chain.words()}"
            while went_on.pop(0) < done:
                pass

    # What people are told: by whom, and what to do.
    for kill in chain.kills:
        said = chain.logs()[kill.run - 1]
        if "server" in kill.aim.role:
            assert "error: Prefect's local server ended before the run did" in said, said
            assert "it was killed by SIGKILL" in said and "run the same command again" in said, said
        if kill.aim.role in ENDS_THE_STAGE or kill.aim.role.startswith("rank"):
            assert "killed by SIGKILL; out of memory is the usual reason; lower" in said, said
    assert "Traceback" not in "".join(chain.logs())

    # What the records say: every point of every stage once.
    expected = points(whole)
    told = points(folder)
    assert told.keys() == expected.keys()
    for stage, runs in told.items():
        may_be = [expected[stage][0]]
        if stage == "promotion":
            may_be.append(Counter())  # where the one before was killed after it had made the champion
        assert all(run in may_be for run in runs), (stage, chain.words())
    with sqlite3.connect(folder / "mlflow.db") as records:
        states = {status for (status,) in records.execute("SELECT status FROM runs")}
        versions = records.execute("SELECT version FROM model_versions").fetchall()
        aliases = {alias for (alias,) in records.execute("SELECT alias FROM registered_model_aliases")}
    assert states <= {"FINISHED", "FAILED", "KILLED"}
    assert len(versions) == 1 and aliases == {"candidate", "champion"}
    with sqlite3.connect(tmp_path / "home" / "prefect.db") as records:
        flow_runs, task_runs = (
            {state for (state,) in records.execute(f"SELECT state_type FROM {table} WHERE state_name <> 'NotReady'")}
            for table in ("flow_run", "task_run")
        )  # "NotReady" is Prefect's last word on a task that did not begin, as one before it had failed
    assert flow_runs | task_runs <= {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}, (flow_runs, task_runs)
    assert list((folder / ".work").glob("*-*")) == []


def test_every_role_and_every_phase_comes_by() -> None:
    aims = [*draw(1, LONGEST[1], mlflow=True), *draw(1, LONGEST[2], ranks=2)]
    assert {aim.phase for aim in aims} == set(PHASES)
    assert {aim.role for aim in aims} == {*ENDS_THE_RUN, *ENDS_THE_STAGE, *ENDS_NOTHING, "rank 0", "rank 1"}
    assert draw(1, 20) == draw(1, 20) != draw(2, 20)
