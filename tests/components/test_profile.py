"""Spans: each moment counts once, for the innermost span."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import time

import psutil
time.sleep(0.2)
from components import profile
profile.work_begins()

@profile.span("inner")
def inner():
    time.sleep(0.3)

with profile.span("outer"):
    time.sleep(0.1)
    inner()
    time.sleep(0.1)
    inner()
try:
    with profile.span("broken"):
        raise KeyError
except KeyError:
    pass
time.sleep(0.4)
profile.write()
print(time.time() - psutil.Process().create_time())
"""


def test_each_moment_counts_once(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        env={"PROXIMAL_PROFILE_FILE": str(file)},
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    seconds = json.loads(file.read_text())
    lifetime = float(done.stdout)
    assert sum(seconds.values()) == pytest.approx(lifetime, abs=0.1)  # reason: a start is known to 0.01 s, and printing
    # Sleeping takes no less than asked for, and more on a busy machine.
    assert seconds["inner"] >= 0.6 and seconds["outer"] >= 0.2 and seconds["other"] >= 0.4
    assert seconds["broken"] >= 0.0
    assert seconds["imports"] >= 0.2


def test_nothing_is_written_unasked(tmp_path: Path) -> None:
    code = "from components import profile; profile.write()"
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert list(tmp_path.iterdir()) == []
