"""`proximal run` at a terminal of 80 columns, a real pseudo-terminal, and without one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_project import REPOSITORY, Tiny

COLUMNS = 80
STEPS = "a: step {} of 9, loss 0.4443, and so many figures beside it that no terminal has room for all of them\n"
WARNING = (
    "warning: the SFT policy looks untrained: its entropy is 5.80 nats per token, and drawing any token has 6.40\n"
)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def at_a_terminal(tiny: Tiny, prefect_api: str) -> Callable[..., str]:
    """Runs `proximal` in a pseudo-terminal; gives all that it wrote there."""

    def run(*arguments: str) -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=tiny.folder,
            env={**environment, "PREFECT_API_URL": prefect_api, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # how Linux says that nobody holds the other end any more
            pass
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return written.decode()

    return run


def lines_of(written: str) -> list[str]:
    """What was written, line by line, each state of a moving line one of them."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", CONTROL.sub("", written)) if line.strip()]


def test_a_run_moves_below_and_leaves_a_line_a_stage(tiny: Tiny, at_a_terminal: Callable[..., str]) -> None:
    prints = [STEPS.format(3), WARNING]
    tiny.stages(a={"prints": prints, "seconds": 2}, b={"needs": ["a"]})
    written = at_a_terminal("run", "--no-promotion")
    lines = lines_of(written)
    assert all(len(line) <= COLUMNS for line in lines if not line.startswith("http"))  # an address stays whole
    stays = [line for line in lines if re.match(r" +\d/2  [ab] +(ran|unchanged)", line)]
    assert [line.split()[:3] for line in stays] == [["1/2", "a", "ran"], ["2/2", "b", "ran"]]
    assert re.search(r"\d:\d\d$", stays[0])
    moving = [line for line in lines if "step 3 of 9, loss 0.4443" in line]
    assert len(moving) > 2 and moving[0].endswith(" ...") and "  a " in moving[0]
    assert any("0 of 2 stages done" in line for line in lines) and any("1 of 2 stages done" in line for line in lines)
    said = " ".join(lines)
    assert "warning: the SFT policy looks untrained:" in said  # it stays, broken between words
    assert not re.search(r"\d\d:\d\d:\d\d  a ", said)  # no log lines beside it
    assert "\x1b[?25h" in written  # whatever was hidden, the cursor is there in the end
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l")

    lines = lines_of(at_a_terminal("run", "--no-promotion"))
    assert [line.split() for line in lines if "unchanged" in line] == [
        ["1/2", "a", "unchanged"],
        ["2/2", "b", "unchanged"],
    ]


def test_a_failed_stage_and_its_fault_at_a_terminal(tiny: Tiny, at_a_terminal: Callable[..., str]) -> None:
    message = "error: a loss is not finite\n  where:      step 3\n"
    tiny.stages(a={"status": 2, "prints": [message]}, b={"needs": ["a"]})
    lines = lines_of(at_a_terminal("run", "--no-promotion"))
    assert [line.split()[:3] for line in lines if "1/2" in line and "failed" in line] == [["1/2", "a", "failed"]]
    assert lines[-2:] == ["error: stage a: a loss is not finite", "  where:      step 3"]


def test_without_a_terminal_lines_are_plain_and_whole(
    tiny: Tiny, proximal: Callable[..., subprocess.Popen[str]]
) -> None:
    tiny.stages(a={"prints": [STEPS.format(3), WARNING]}, b={"needs": ["a"]})
    output, _ = proximal("run", "--no-promotion").communicate(timeout=120)
    assert "\x1b" not in output and "\r" not in output
    assert f"a                {STEPS.format(3)}" in output and f"a                {WARNING}" in output
    assert re.search(r"  a +ran, \d+ s; 1 of 2 stages done\n", output)
    assert re.search(r"  b +ran, \d+ s; 2 of 2 stages done\n", output)
    known = (tiny.folder / Path(".work/stage_seconds.json")).read_text()
    assert '"a": ' in known and '"b": ' in known
