"""SIGKILL of any process of a run: no process is left after 15 seconds, and the next run ends with the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML
from tiny_project import REPOSITORY, Tiny, is_running

from components import supervise
from components.tracking import store

LONGEST_S = 15


@pytest.fixture
def home(prefect_database: Path, tmp_path: Path) -> Path:
    """A place for a local Prefect server; every process of a run has it in its environment."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(prefect_database, home / "prefect.db")  # spares a minute of migrations
    return home


@pytest.fixture
def run(tiny: Tiny, home: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts `proximal run` with a Prefect server of its own; what is left of it at the end is killed."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"PREFECT_HOME": str(home), "PYTHONPATH": str(REPOSITORY)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", "--no-promotion"],
            cwd=tiny.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    yield start
    for process in _processes_of(home):
        process.kill()


def _processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT_HOME") == str(home):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def _tree(flow: int, stage: int) -> dict[str, psutil.Process]:
    """The processes of a run with a running stage, by their part in it."""
    dvc = next(above for above in psutil.Process(stage).parents() if "repro" in above.cmdline()[1:])
    while "repro" in (dvc.parent() or dvc).cmdline() and supervise.__file__ not in (dvc.parent() or dvc).cmdline():
        dvc = dvc.parent() or dvc
    supervisor = dvc.parent()
    server = next(below for below in psutil.Process(flow).children(recursive=True) if "server" in below.cmdline()[1:])
    while supervise.__file__ in server.cmdline():
        (server,) = server.children()
    server_supervisor = server.parent()
    assert supervisor is not None and server_supervisor is not None
    return {
        "flow": psutil.Process(flow),
        "supervisor": supervisor,
        "DVC": dvc,
        "stage": psutil.Process(stage),
        "server": server,
        "supervisor of the server": server_supervisor,
    }


@pytest.mark.parametrize("victim", ["flow", "supervisor", "DVC", "stage", "server", "supervisor of the server"])
def test_nothing_is_left_and_the_next_run_makes_the_same(
    tiny: Tiny, run: Callable[[], subprocess.Popen[str]], home: Path, victim: str
) -> None:
    # Only a supervisor finds what has left its tree; without one, every process must see to its parent's end by itself.
    b = {"needs": ["a"], "waits_once": True, "detached_child": victim != "supervisor"}
    tiny.stages(a={"needs": ["data/rows"]}, b=b)
    process = run()
    deadline = time.monotonic() + 150
    while not (tiny.folder / "waited").exists():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    tree = _tree(process.pid, tiny.log()[-1]["pid"])
    assert {one.pid for one in tree.values()} <= {one.pid for one in _processes_of(home)}
    assert len({one.pid for one in tree.values()}) == len(tree)
    of_the_stage = [tree[name].pid for name in ("supervisor", "DVC", "stage")]
    killed_at = time.monotonic()
    tree[victim].kill()

    if victim in ("supervisor", "DVC", "stage"):  # the machine's fault: the stage is tried once more
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
        assert re.search(r"failed, \d+ s: (the process that ran it )?was killed", output)
        assert tiny.began() == ["a", "b", "b"]
        assert not any(is_running(pid) for pid in of_the_stage)
    else:
        output, _ = process.communicate(timeout=LONGEST_S)
        while _processes_of(home):
            assert time.monotonic() - killed_at < LONGEST_S, [one.cmdline() for one in _processes_of(home)]
            time.sleep(0.1)
        if victim == "flow":
            assert process.returncode == -9
        else:
            assert process.returncode == 1
            assert "error: Prefect's local server ended before the run did\n  where:      " in output
            assert "  found:      it was killed by SIGKILL\n" in output
            assert "Traceback" not in output, output
            parent_run = tiny.log()[-1]["parent_run"]
            assert store.client().get_run(parent_run).info.status == "FAILED"
        assert tiny.began() == ["a", "b"]
        again = run()
        output, _ = again.communicate(timeout=150)
        assert again.returncode == 0, output
        assert tiny.began() == ["a", "b", "b"]  # what had ended is not run again
    assert _processes_of(home) == []
    params = (tiny.folder / "params.yaml").read_text()
    assert (tiny.folder / "a.out").read_text() == f"a{params}"
    assert (tiny.folder / "b.out").read_text() == f"b{params}"
    lock = YAML(typ="safe").load(tiny.folder / "dvc.lock")["stages"]
    assert lock["b"]["deps"] == [{**lock["a"]["outs"][0]}]
