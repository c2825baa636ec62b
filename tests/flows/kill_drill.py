"""A chain of run, kill, run, kill, ... over one pipeline: whom to kill is drawn, and when is aimed by what is seen."""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import kill_world
import psutil
from ruamel.yaml import YAML
from tiny_project import is_running, longest_s

PATIENCE_S = 1500.0  # on a machine with much else to do
# A phase: the stage at work, and what is waited for: its process, another checkpoint, one that is put in place of the
# last, or outputs that DVC has not yet taken. And how long after it, at most, the kill comes.
PHASES = {
    "sft": ("sft", "checkpoint", 1.0),
    "the swap of sft's checkpoint": ("sft", "swap", 0.0),
    "the commit of sft": ("sft", "commit", 0.0),
    "reward model": ("reward_model", "begun", 6.0),
    "judge": ("judge", "checkpoint", 0.5),
    "rollouts": ("alignment", "checkpoint", 0.1),
    "updates": ("alignment", "checkpoint", 0.6),
    "the swap of a cycle's checkpoint": ("alignment", "swap", 0.0),
    "the commit of a cycle": ("alignment", "commit", 0.0),
    "evaluation": ("evaluation", "begun", 6.0),
    "promotion": ("promotion", "begun", 6.0),
}
ENDS_THE_RUN = ("flow", "server", "supervisor of the server")
ENDS_THE_STAGE = ("supervisor", "DVC", "launcher")
_GOES_ON = re.compile(r"goes on after (?:step|iteration) (\d+)")
_RAN = re.compile(r"^\S+  (\S+) +ran, ", re.MULTILINE)


@dataclass(frozen=True)
class Aim:
    """Whom to kill, in which phase, and how long after its sign."""

    role: str
    phase: str
    delay_s: float


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


def draw(seed: int, kills: int, *, ranks: int = 0) -> list[Aim]:
    """So many kills in the order of the pipeline: roles and phases come by in turn, each time in another order."""
    drawn = random.Random(seed)
    everybody = [*ENDS_THE_RUN, *ENDS_THE_STAGE, *(f"rank {rank}" for rank in range(ranks))]
    waiting, phases, aims = list[str](), list[str](), []
    for _ in range(kills):
        phases = phases or drawn.sample(list(PHASES), len(PHASES))
        phase = phases.pop()
        if not any(_is_there(role, phase) for role in waiting):
            waiting += drawn.sample(everybody, len(everybody))
        role = next(role for role in waiting if _is_there(role, phase))
        waiting.remove(role)
        aims.append(Aim(role, phase, drawn.uniform(0.0, PHASES[phase][2])))
    return sorted(aims, key=lambda aim: list(PHASES).index(aim.phase))


def _is_there(role: str, phase: str) -> bool:
    stage, sign, _ = PHASES[phase]
    if role == "DVC":
        return stage != "promotion"  # which is no stage of DVC's
    if sign == "commit":
        return role != "launcher" and not role.startswith("rank")  # the stage itself has ended
    return not role.startswith("rank") or stage not in ("evaluation", "promotion")  # one process each


class Chain:
    """One pipeline, run again after each kill until it ends by itself."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home = folder, home
        self.kills: list[Kill] = []
        self.missed: list[Aim] = []
        self._logs: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None

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
        while (victim := self._seen(aim, stage, sign, before)) is None:
            if self._process is not None and self._process.poll() == 0 or stage in self._committed():
                self.missed.append(aim)  # the stage has ended meanwhile
                return
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert time.monotonic() < deadline, f"{aim}\n{self.words()}"
            time.sleep(0.01)
        time.sleep(aim.delay_s)
        kill = Kill(aim, stage, len(self._logs), self._done(stage), self._committed())
        with_it = self.processes() if aim.role in ENDS_THE_RUN else victim.children(recursive=True)
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            self.missed.append(aim)
            return
        self.kills.append(kill)
        _require_gone(with_it, str(aim))

    def _seen(self, aim: Aim, stage: str, sign: str, before: int) -> psutil.Process | None:
        """The victim, in the moment that is waited for."""
        if self._process is None or (victim := self._find(aim.role, stage)) is None:
            return None
        if sign == "swap":
            deadline = time.monotonic() + 0.3
            while time.monotonic() < deadline:
                if any((self.folder / ".work").glob(f".{stage}-*")):
                    return victim
            return None
        if sign == "commit":
            out = self.folder / "artifacts" / stage / ("1" if stage == "alignment" else "") / "metrics.json"
            return victim if out.exists() and self._find("launcher", stage) is None else None
        if self._find("launcher", stage) is None:
            return None
        return victim if sign == "begun" or self._done(stage) > before else None

    def _find(self, role: str, stage: str) -> psutil.Process | None:
        """The process of a role; but for the flow and its server, of the stage."""
        assert self._process is not None
        try:
            flow = psutil.Process(self._process.pid)
            if role == "flow":
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
        for file in (self.folder / ".work").glob(f"{stage}-*/curve.json"):
            try:
                return len(json.loads(file.read_text()))
            except (OSError, ValueError):
                continue
        return 0

    def _committed(self) -> frozenset[str]:
        """The stages that DVC has taken."""
        lock = self.folder / "dvc.lock"
        written = (YAML(typ="safe").load(lock) or {}).get("stages", {}) if lock.exists() else {}
        return frozenset(name.partition("@")[0] for name in written)

    def _start(self) -> None:
        self._logs.append(self.folder.parent / f"{self.folder.name}-{len(self._logs) + 1}.log")
        self._process = kill_world.start(self.folder, self.home, self._logs[-1])

    def _ended(self) -> int:
        """The exit status of the run, after which nothing of it is left."""
        if self._process is None:
            self._start()
        assert self._process is not None
        status = self._process.wait(PATIENCE_S)
        _require_gone(self.processes(), self.words())
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
