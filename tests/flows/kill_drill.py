"""A chain of run, kill, run, kill, ... over one pipeline: whom to kill is drawn, and when is aimed by what is seen."""

from __future__ import annotations

import json
import re
import subprocess
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import small_world
from kill_aims import ENDS_NOTHING, ENDS_THE_RUN, PHASES, Aim
from real_servers import Server
from ruamel.yaml import YAML
from tiny_project import is_running, longest_s

PATIENCE_S = 1500.0  # on a machine with much else to do
_GOES_ON = re.compile(r"goes on after (?:step|iteration) (\d+)")
_RAN = re.compile(r"^\S+  (\S+) +ran, ", re.MULTILINE)


@dataclass(frozen=True)
class Kill:
    """What was there when somebody was killed.

    Args:
        run: the number of the run, from 1.
        done: steps or iterations of the stage's last checkpoint.
        committed: the stages that DVC had taken.
    """

    aim: Aim
    stage: str
    run: int
    done: int
    committed: frozenset[str]


class Chain:
    """One pipeline, run again after each kill until it ends by itself.

    Args:
        home: of its Prefect.
        mlflow: the server that it tells of its work, and the address; else a file.
    """

    def __init__(self, folder: Path, home: Path, mlflow: tuple[Server, str] | None = None) -> None:
        self.folder, self.home = folder, home
        self.kills: list[Kill] = []
        self.missed: list[Aim] = []
        self.statuses: list[int] = []  # of the runs, in their order
        self._logs: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._mlflow = mlflow
        self._taken: tuple[float, frozenset[str]] = (0.0, frozenset())

    def run(self, aims: list[Aim]) -> None:
        """Kill as aimed, one after the other, and then let the pipeline end.

        Raises:
            AssertionError: something outlives a kill, or the pipeline does not end.
        """
        for aim in aims:
            self._take(aim)
        while self._ended() != 0:  # of a stage that was killed twice in one run, say
            assert len(self._logs) <= len(aims) + 3, self.words()
            self._start()

    def went_on(self, stage: str) -> list[int]:
        """The checkpoints that a stage went on from, one after the other."""
        name = {"alignment": "ppo: cycle 1"}.get(stage, f"{stage}:")
        lines = [line for log in self.logs() for line in log.splitlines() if name in line]
        return [int(found[1]) for line in lines if (found := _GOES_ON.search(line))]

    def ran_after(self, kill: Kill) -> set[str]:
        """The stages that ran to their end in later runs."""
        return {stage.partition("@")[0] for log in self.logs()[kill.run :] for stage in _RAN.findall(log)}

    def logs(self) -> list[str]:
        """What each run said."""
        return [log.read_text(errors="replace") for log in self._logs]

    def words(self) -> str:
        """What happened, for whoever reads a failure."""
        return "\n".join([*map(str, self.kills), *(f"missed: {aim}" for aim in self.missed), *self.logs()[-1:]])

    def processes(self) -> list[psutil.Process]:
        """Every process of the chain's runs."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PREFECT_HOME") == str(self.home) and is_running(process.pid):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def _take(self, aim: Aim) -> None:
        stage, sign, _ = PHASES[aim.phase]
        before, deadline = self._done(stage), time.monotonic() + PATIENCE_S
        with small_world.held(self.folder, stage) if sign == "swap" else nullcontext():
            while (victim := self._seen(aim, stage, sign, before)) is None:
                if self._process is not None and self._has_ended() == 0 or stage in self._committed():
                    self.missed.append(aim)  # the stage has ended meanwhile
                    return
                if self._process is None or self._has_ended() is not None:
                    self._start()
                assert time.monotonic() < deadline, f"{aim}\n{self.words()}"
                time.sleep(0.2 if sign == "begun" else 0.01)
            time.sleep(aim.delay_s)
            kill = Kill(aim, stage, len(self._logs), self._done(stage), self._committed())
            if aim.role in ENDS_NOTHING:
                self._kill_mlflow()
                self.kills.append(kill)
                return
            with_it = self.processes() if aim.role in ENDS_THE_RUN else victim.children(recursive=True)
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                self.missed.append(aim)
                return
            self.kills.append(kill)
        _require_gone(with_it, str(aim))

    def _kill_mlflow(self) -> None:
        assert self._mlflow is not None
        server, _ = self._mlflow
        server.wait()  # after the kill before
        server.kill()
        server.launch()

    def _seen(self, aim: Aim, stage: str, sign: str, before: int) -> psutil.Process | None:
        """The victim, in the moment that is waited for."""
        if self._process is None or sign == "checkpoint" and self._done(stage) <= before:
            return None
        if sign == "swap" and not any((self.folder / ".work").glob(f".{stage}-*.aside")):
            return None
        out = self.folder / "artifacts" / stage / ("1" if stage == "alignment" else "") / "metrics.json"
        if sign == "commit" and not out.exists():
            return None
        if (self._find("launcher", stage) is None) is not (sign == "commit"):
            return None
        return self._find(aim.role, stage)

    def _find(self, role: str, stage: str) -> psutil.Process | None:
        """The process of a role; but for the flow and its server, of the stage."""
        assert self._process is not None
        try:
            flow = psutil.Process(self._process.pid)
            if role == "flow" or role in ENDS_NOTHING:  # which is none of its processes
                return flow
            if role == "server":
                return _lowest(flow, ["prefect", "server"])
            if role == "supervisor of the server":
                return next((below for below in flow.children() if "server" in below.cmdline()), None)
            for supervisor in flow.children():
                if stage not in " ".join(supervisor.cmdline()).replace("@", " ").split():
                    continue
                if role == "supervisor":
                    return supervisor
                if role == "DVC":
                    return _lowest(supervisor, ["repro"])
                launcher = _lowest(supervisor, ["components.launch"])
                if launcher is None or role == "launcher":
                    return launcher
                ranks = [one for one in launcher.children(recursive=True) if "components.stage" in one.cmdline()]
                return next((one for one in ranks if one.environ().get("RANK") == role[-1]), None)
        except psutil.Error:
            pass
        return None

    def _done(self, stage: str) -> int:
        """How many steps or iterations the stage's last checkpoint has."""
        done = [0]
        for pattern in (f"{stage}-*", f".{stage}-*.aside"):  # the second in the midst of a swap
            for file in (self.folder / ".work").glob(f"{pattern}/curve.json"):
                with suppress(OSError, ValueError):
                    done.append(len(json.loads(file.read_text())))
        return max(done)

    def _committed(self) -> frozenset[str]:
        """The stages that DVC has taken."""
        lock = self.folder / "dvc.lock"
        if lock.exists() and (written := lock.stat().st_mtime) != self._taken[0]:
            stages = (YAML(typ="safe").load(lock) or {}).get("stages", {})
            self._taken = written, frozenset(name.partition("@")[0] for name in stages)
        return self._taken[1]

    def _start(self) -> None:
        self._logs.append(self.folder.parent / f"{self.folder.name}-{len(self._logs) + 1}.log")
        tracking = {} if self._mlflow is None else {"MLFLOW_TRACKING_URI": self._mlflow[1]}
        self._process = small_world.start(self.folder, self.home, self._logs[-1], tracking)

    def _has_ended(self) -> int | None:
        """The exit status of the run; None while it goes on."""
        assert self._process is not None
        status = self._process.poll()
        if status is not None and len(self.statuses) < len(self._logs):
            self.statuses.append(status)
        return status

    def _ended(self) -> int:
        """The exit status of the run, after which nothing of it is left."""
        if self._process is None:
            self._start()
        assert self._process is not None
        self._process.wait(PATIENCE_S)
        _require_gone(self.processes(), self.words())
        status = self._has_ended()
        assert status is not None
        return status


def _require_gone(processes: list[psutil.Process], where: str) -> None:
    began = time.monotonic()
    while left := [one for one in processes if is_running(one.pid)]:
        waited = time.monotonic() - began
        assert waited < longest_s(), f"{where}: left after {waited:.0f} s: {[one.cmdline() for one in left]}"
        time.sleep(0.02)


def _lowest(above: psutil.Process, words: list[str]) -> psutil.Process | None:
    """The process of a command itself, below those that supervise it."""
    for below in above.children(recursive=True):
        command = below.cmdline()
        if all(word in command for word in words) and not any(part.endswith("supervise.py") for part in command):
            return below
    return None
