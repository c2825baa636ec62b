"""Nothing half-written is left where a reader would find it: on an exception, on a full disk, under a size limit."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.artifacts import (
    atomic_folder,
    atomic_write_text,
    disk_faults,
    link_or_copy,
    read_json,
    read_jsonl,
    reading,
    recover_folder,
    remove_folder,
    write_json,
    write_jsonl,
)
from components.errors import ArtifactError, DataError, EnvironmentFault
from components.place import Place


def content_of(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "deep" / "out") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / text).write_text(text)
            assert content_of(tmp_path / "deep").get("out/sub/new") is None
    assert content_of(tmp_path) == {"deep/out/sub/new": "new"}


@pytest.mark.parametrize("fault", [ValueError("broken"), KeyboardInterrupt(), SystemExit(143)])
def test_a_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path, fault: BaseException) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("old")
    with pytest.raises(type(fault)), atomic_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("half of the new")
        raise fault
    assert content_of(tmp_path) == {"out/file": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_no_part_of_the_next_result(tmp_path: Path) -> None:
    command = (
        "import os, sys; from pathlib import Path; from components.artifacts import atomic_folder\n"
        "with atomic_folder(Path('out')) as folder:\n"
        "    (folder / 'half').write_text('x'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path)
    assert done.returncode == -9 and not (tmp_path / "out").exists()
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("y")
    assert content_of(tmp_path) == {"out/whole": "y"}


# Does something with the folder `out`, and is killed by the kernel before the given one of its changes to the disk.
_KILLED_AT = """
import os, shutil, sys
from pathlib import Path
from components import artifacts

def killing(call):
    def instead(*arguments, **names):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), 9)
        return call(*arguments, **names)
    return instead

left = int(sys.argv[1])
for name in ("rename", "replace", "unlink", "rmdir"):
    setattr(os, name, killing(getattr(os, name)))
if sys.argv[2] == "remove":
    artifacts.remove_folder(Path("out"))
elif sys.argv[2] == "recover":
    artifacts.recover_folder(Path("out"))
else:
    with artifacts.atomic_folder(Path("out")) as folder:
        (folder / "state").mkdir()
        for name in ("a", "b", "state/c"):
            (folder / name).write_text(sys.argv[2])
"""


def killed_at(step: int, what: str, folder: Path) -> bool:
    done = subprocess.run([sys.executable, "-c", _KILLED_AT, str(step), what], cwd=folder, capture_output=True)
    assert done.returncode in (-9, 0), done.stderr
    return done.returncode == -9


def whole(text: str) -> dict[str, str]:
    return dict.fromkeys(("a", "b", "state/c"), text)


def test_a_kill_at_any_step_of_the_replacement_leaves_a_whole_folder_to_the_next_start(tmp_path: Path) -> None:
    found = []
    for step in range(1, 100):
        folder = tmp_path / str(step)
        folder.mkdir()
        assert not killed_at(99, "old", folder)
        if not killed_at(step, "new", folder):
            break
        assert not (folder / "out").exists() or content_of(folder / "out") in (whole("old"), whole("new"))
        if step % 2:  # the next start may be killed too
            killed_at(2, "recover", folder)
        recover_folder(folder / "out")
        found.append(content_of(folder / "out"))
        assert [path.name for path in folder.iterdir()] == ["out"]
    # Until the second rename it is the old one, then, among the unlinks of the old one, the new.
    olds = found.count(whole("old"))
    assert found == [whole("old")] * olds + [whole("new")] * (len(found) - olds)
    assert olds >= 2 and len(found) - olds >= 5


def test_a_kill_at_any_step_of_the_removal_leaves_all_or_nothing(tmp_path: Path) -> None:
    found = []
    for step in range(1, 100):
        folder = tmp_path / str(step)
        folder.mkdir()
        assert not killed_at(99, "old", folder)
        if not killed_at(step, "remove", folder):
            break
        recover_folder(folder / "out")
        found.append(content_of(folder / "out"))
    olds = found.count(whole("old"))
    assert found == [whole("old")] * olds + [{}] * (len(found) - olds) and olds >= 1 and len(found) - olds >= 5
    assert not list(folder.iterdir())
    remove_folder(folder / "out")  # there is nothing: nothing happens


def test_a_file_that_cannot_be_linked_is_copied(tmp_path: Path) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    (tmp_path / "here").write_text("x")
    with tempfile.TemporaryDirectory(dir=other) as elsewhere:
        link_or_copy(str(tmp_path / "here"), f"{elsewhere}/there")
        assert Path(elsewhere, "there").read_text() == "x"
    link_or_copy(str(tmp_path / "here"), str(tmp_path / "there"))
    assert (tmp_path / "there").samefile(tmp_path / "here")
    with pytest.raises(FileNotFoundError):
        link_or_copy(str(tmp_path / "absent"), str(tmp_path / "other"))


def test_a_text_is_replaced_in_one_step_or_not_at_all(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "deep" / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(tmp_path / "deep" / "file", "half \ud800")
    assert content_of(tmp_path) == {"deep/file": "old"}


def test_json_depends_on_its_content_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": [1.5, None, "é"]})
    write_json(tmp_path / "b", {"a": [1.5, None, "é"], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes().endswith(b"}\n")
    assert read_json(tmp_path / "a") == {"a": [1.5, None, "é"], "b": 1}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "file", {"loss": number})
    with pytest.raises(ValueError):
        write_jsonl(tmp_path / "file", [{"loss": number}])
    assert not list(tmp_path.iterdir())


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [{"text": 'é 日本 "quoted"\nand\u2028more', "n": 1}, {"text": "", "n": None}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert (tmp_path / "rows.jsonl").read_bytes().count(b"\n") == 2
    assert read_jsonl(tmp_path / "rows.jsonl") == rows


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ('{"a": 1}\n\n{"a": 2,}\n', 3, '{"a": 2,}'),
        ('{"a": 1}\n[1, 2]\n', 2, "[1, 2]"),
        ('{"a": 1}\n{"a": "' + "x" * 500, 2, "x" * 60),
        ("7", 1, "7"),
    ],
)
def test_a_bad_line_is_named_and_shown(tmp_path: Path, content: str, line: int, found: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        read_jsonl(tmp_path / "rows.jsonl")
    assert caught.value.where == f"{tmp_path}/rows.jsonl, line {line}"
    assert found in caught.value.found and len(caught.value.found) < 200


def test_what_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        read_jsonl(tmp_path / "nowhere.jsonl")
    with pytest.raises(ArtifactError, match=r"nowhere\.json"):
        read_json(tmp_path / "nowhere.json")
    (tmp_path / "file").write_bytes(b'{"a": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=str(tmp_path / "file")):
        read_jsonl(tmp_path / "file")
    with pytest.raises(ArtifactError, match=str(tmp_path / "file")):
        read_json(tmp_path / "file")
    (tmp_path / "file").write_text('{"a": ')
    with pytest.raises(ArtifactError, match=str(tmp_path / "file")):
        read_json(tmp_path / "file")


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
    with pytest.raises(EnvironmentFault, match="disk is full") as caught:
        perform("sft", load_params(Place().params), Place())
    assert caught.value.where == str(Place().sft)
    monkeypatch.chdir("/")
    assert sorted(small_disk.rglob("*")) == before


def test_numbers_keep_every_digit(tmp_path: Path) -> None:
    number = 0.1 + 0.2
    write_json(tmp_path / "file", number)
    assert read_json(tmp_path / "file") == number == json.loads("0.30000000000000004")


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n')
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("fault", [AttributeError("ours"), RuntimeError("ours")])
def test_a_fault_of_ours_is_not_taken_for_a_damaged_file(fault: Exception) -> None:
    with pytest.raises(type(fault), match="ours"), reading("model", Path("artifacts/sft/policy"), "weights"):
        raise fault


@pytest.mark.parametrize(
    ("place", "made_here"), [("artifacts/sft/policy", True), (".work/x/policy", True), ("/tmp/fetched/policy", False)]
)
def test_only_what_dvc_makes_is_said_to_come_back_by_dvc_repro(place: str, made_here: bool) -> None:
    with pytest.raises(ArtifactError) as caught, reading("model", Path(place), "weights"):
        raise ValueError("broken")
    assert ("dvc repro" in caught.value.do) == made_here and caught.value.where == place
