"""Faults of the disk name the path and leave nothing half-written: a full disk, a size limit, no rights."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.artifacts import disk_faults
from components.errors import DataError, EnvironmentFault
from components.place import Place


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS])
def test_faults_of_the_machine_name_the_path(tmp_path: Path, number: int) -> None:
    with pytest.raises(EnvironmentFault) as caught, disk_faults(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert caught.value.where == str(tmp_path / "file")


def test_other_faults_pass(tmp_path: Path) -> None:
    for fault in (OSError(errno.EISDIR, "a folder"), RuntimeError("ours"), DataError("the user's")):
        with pytest.raises(type(fault)) as caught, disk_faults(tmp_path):
            raise fault
        assert caught.value is fault


# What writes: safetensors and tokenizers raise errors of their own around the operating system's.
WRITERS = {
    "safetensors": """
import numpy
from safetensors.numpy import save_file
with atomic_folder(folder / "out") as scratch:
    (scratch / "first").write_text("x")
    save_file({"weight": numpy.zeros(200_000)}, scratch / "model.safetensors")
""",
    "a tokenizer": """
from tokenizers import Tokenizer, models
tokenizer = Tokenizer(models.WordLevel({f"word{number}": number for number in range(20_000)}, unk_token="word0"))
with atomic_folder(folder / "out") as scratch:
    tokenizer.save(str(scratch / "tokenizer.json"))
""",
    "JSON": 'write_json(folder / "out", ["x" * 1000] * 800)',
}
PROGRAM = """
import sys
from pathlib import Path
from components.artifacts import atomic_folder, write_json
from components.errors import EnvironmentFault
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for name, writer in {writers}.items():
    try:
        exec(writer)
    except EnvironmentFault as fault:
        print(name, "|", fault.where, "|", fault.found)
    except BaseException as fault:
        print(name, "| not caught:", type(fault), fault)
    else:
        print(name, "| nothing was wrong")
"""


def every_writer_is_stopped(folder: Path, limit: int) -> None:
    """All writers fail with an EnvironmentFault that names `folder`/out, and leave nothing."""
    program = PROGRAM.replace("{writers}", repr(WRITERS))
    command = [sys.executable, "-c", program, str(folder), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert [line.split(" | ")[:2] for line in done.stdout.splitlines()] == [
        [name, str(folder / "out")] for name in WRITERS
    ], done.stdout + done.stderr[-2000:]
    assert list(folder.iterdir()) == []


def test_a_limit_on_the_size_of_files_stops_every_writer_cleanly(tmp_path: Path) -> None:
    every_writer_is_stopped(tmp_path, limit=100_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real filesystem of 160 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small filesystem cannot be mounted here: that takes root's rights")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_every_writer_cleanly(small_disk: Path) -> None:
    every_writer_is_stopped(small_disk, limit=0)


def test_a_disk_that_fills_up_while_a_stage_stores_its_model(
    small_disk: Path, raw_world: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.config import load_params
    from components.stages import perform

    shutil.copytree(raw_world, small_disk, dirs_exist_ok=True)
    (small_disk / "filler").write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 20_000))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(small_disk)
    before = sorted(small_disk.rglob("*"))
    work = small_disk / Place().work
    with pytest.raises(EnvironmentFault, match="disk is full") as caught:
        perform("sft", load_params(Place().params), Place())
    assert caught.value.where.startswith(f"{Place().work}/sft-")  # its first checkpoint
    monkeypatch.chdir("/")
    left = set(small_disk.rglob("*")) - set(before)
    assert left <= {work, work / "undelivered", *work.glob("sft-*.json")}, left  # of the work, only whose it was
