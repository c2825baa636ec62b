"""Checkpoints of a clone whose run was killed are there for the next run in a clone; a living run keeps its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from flows.left_work import own_work

SFT, CYCLE = "sft-0123456789abcdef", "alignment-1-00112233445566ff"


def left(clone: Path, name: str, text: str) -> None:
    (clone / ".work" / name).mkdir(parents=True, exist_ok=True)
    (clone / ".work" / name / "curve.json").write_text(text)
    (clone / ".work" / f"{name}.json").write_text("{}")
    (clone / ".work" / "stage_seconds.json").write_text("{}")


def test_the_next_run_goes_on_with_what_nobody_works_at(tmp_path: Path) -> None:
    left(tmp_path / "killed", SFT, "killed")
    left(tmp_path / "killed", CYCLE, "killed")
    (tmp_path / "killed" / ".work" / f".{CYCLE}.partial").mkdir()
    left(tmp_path / "alive", "judge-0123456789abcdef", "alive")
    (tmp_path / "new").mkdir()
    (tmp_path / "being cloned").mkdir()
    with FileLock(tmp_path / "alive" / ".work" / "run.lock"), own_work(tmp_path / "new"):
        found = {path.name for path in (tmp_path / "new" / ".work").iterdir()}
        assert found == {SFT, f"{SFT}.json", CYCLE, f"{CYCLE}.json", f".{CYCLE}.partial", "run.lock"}
        assert (tmp_path / "new" / ".work" / SFT / "curve.json").read_text() == "killed"
    assert (tmp_path / "killed" / ".work" / "stage_seconds.json").exists()


def test_the_last_ones_work_counts(tmp_path: Path) -> None:
    for clone in ("second", "first"):
        left(tmp_path / clone, SFT, clone)
    os.utime(tmp_path / "first" / ".work", (1, 1))
    (tmp_path / "new").mkdir()
    with own_work(tmp_path / "new"):
        assert (tmp_path / "new" / ".work" / SFT / "curve.json").read_text() == "second"
    assert (tmp_path / "first" / ".work" / SFT).exists()


def test_a_killed_process_lets_go_of_its_clone(tmp_path: Path) -> None:
    left(tmp_path / "killed", SFT, "killed")
    holds = "import sys, time, filelock; a = filelock.FileLock(sys.argv[1]); a.acquire(); print('held', flush=True)"
    lock = str(tmp_path / "killed" / ".work" / "run.lock")
    command = [sys.executable, "-c", f"{holds}; time.sleep(60)", lock]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        (tmp_path / "new").mkdir()
        with own_work(tmp_path / "new"):
            assert not (tmp_path / "new" / ".work" / SFT).exists()
        process.kill()
    with own_work(tmp_path / "new"):
        assert (tmp_path / "new" / ".work" / SFT / "curve.json").exists()
