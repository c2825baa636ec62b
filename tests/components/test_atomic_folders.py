"""A folder or a text appears whole or not at all: after an exception, and after a kill at any step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.artifacts import atomic_folder, atomic_write_text, recover_folder, remove_folder


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


def test_a_text_is_replaced_in_one_step_or_not_at_all(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "deep" / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        atomic_write_text(tmp_path / "deep" / "file", "half \ud800")
    assert content_of(tmp_path) == {"deep/file": "old"}
