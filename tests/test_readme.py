"""Every command of README and docs/ is run: here, by a test that is named, or it is said why not."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from clones import lend_venv
from readme import PAGES, README, commands
from readme_commands import COMMANDS, Elsewhere, Here, NotRun, Target

from components.processes import free_port

ROOT = README.parent
GOLD = 0.25  # what the tests make of the candidate's gain
SUMMARY = Path("artifacts/evaluation/summary.json")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of what lies here now, with the data and the figures of the last commit, one of them changed."""
    folder = tmp_path_factory.mktemp("readme") / "clone"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    lend_venv(folder)
    person = "-c user.name=Test -c user.email=test@localhost"
    shell(f"git init --quiet && git add --all && git {person} commit --quiet --message start", folder)
    shell(f"make .venv/.data && dvc checkout --quiet {SUMMARY}", folder)
    summary = json.loads((folder / SUMMARY).read_text())
    summary["difference"]["gold"] = GOLD
    (folder / SUMMARY).unlink()  # it may be a link into the cache
    (folder / SUMMARY).write_text(json.dumps(summary))
    return folder


def environment(folder: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PREFECT_", "MAKE"))}
    return own | {
        "PATH": f"{Path(sys.executable).parent}:{own['PATH']}",
        "PYTHONPATH": str(folder),  # this code, whatever is installed
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "true",
        "COLUMNS": "80",
    }


def shell(line: str, folder: Path) -> str:
    """What a line of README prints; it must succeed."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def of(kind: type) -> list[str]:
    return [command for command, held in COMMANDS.items() if isinstance(held, kind)]


def test_commands_are_found_where_a_reader_finds_them() -> None:
    text = (
        "Run `make`, or `make\nall`; `proximal` and `other thing` are none.\n```\nmake run  # all\n\nmake \\\n  test\n"
        "verdict  promoted\n```\n```python\nmake = 1\n```\n| `dvc dag` | `make` |\n"
    )
    assert commands(text) == ["make run", "make test", "make", "make all", "dvc dag"]


def test_every_command_of_readme_and_docs_is_held_and_nothing_else() -> None:
    found = [command for page in (README, *PAGES) for command in commands(page.read_text(encoding="utf-8"))]
    assert found and PAGES
    new = [command for command in found if command not in COMMANDS]
    gone = [command for command in COMMANDS if command not in found]
    assert not new, f"without an entry in tests/readme_commands.py: {new}"
    assert not gone, f"in tests/readme_commands.py, and neither in README nor in docs/: {gone}"


@pytest.mark.parametrize("command", of(Here))
def test_it_does_what_readme_says(command: str, clone: Path, tmp_path: Path) -> None:
    held = COMMANDS[command]
    assert isinstance(held, Here)
    folder = Path(shutil.copytree(clone, tmp_path / "clone", symlinks=True))
    if held.serves:
        assert _answers_until_ended(command + held.more, held.serves, folder)
        return
    printed = shell(command + held.more, folder)
    assert printed or not held.shows
    for words in held.shows:
        assert words in printed, printed


@pytest.mark.parametrize("command", of(Elsewhere))
def test_the_test_that_runs_it_is_there(command: str) -> None:
    held = COMMANDS[command]
    assert isinstance(held, Elsewhere)
    file, _, name = held.name.partition("::")
    source = (ROOT / file).read_text(encoding="utf-8")
    defined = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    tests = [name] if name else [found for found in defined if found.startswith("test_")]
    assert tests and set(tests) <= set(defined), f"{held.name} is no longer there"
    for words in held.words:
        assert words in source, f"{held.name} no longer runs {command}"


@pytest.mark.parametrize("command", of(Target))
def test_a_target_runs_what_its_name_promises(command: str, clone: Path) -> None:
    held = COMMANDS[command]
    assert isinstance(held, Target)
    assert f"/{held.command}" in shell(f"make --dry-run {command.removeprefix('make ')}", clone)


def test_what_is_not_run_says_why() -> None:
    for command in of(NotRun):
        held = COMMANDS[command]
        assert isinstance(held, NotRun) and held.why


def _answers_until_ended(command: str, address: str, folder: Path) -> bool:
    port = free_port()
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command.format(port=port)}"],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and server.poll() is None:
            try:
                with urllib.request.urlopen(address.format(port=port), timeout=5) as response:
                    return bool(response.status == 200)
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        return False
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
