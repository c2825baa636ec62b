"""What the tests of infra/ share: the programs of the environment that pytest runs in, and the files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
COMPOSE = INFRA / "compose.yaml"


def faults(program: str, *arguments: str | Path) -> str:
    """What a checker says against files; nothing where it finds no fault."""
    command = [str(Path(sys.executable).parent / program), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode else ""


def tracked(*patterns: str) -> list[Path]:
    """The files of the repository that git knows or would take, by git's patterns."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [path for name in listed if (path := ROOT / name).exists()]


def with_fault(original: Path, folder: Path, old: str, new: str) -> Path:
    """A copy of a file in which a fault is planted."""
    text = original.read_text()
    assert old in text
    copy = folder / original.name
    copy.write_text(text.replace(old, new, 1))
    return copy


def services() -> dict[str, Any]:
    """Of the compose file, with what they merge in."""
    content: dict[str, Any] = YAML(typ="safe").load(COMPOSE)
    return content["services"]
