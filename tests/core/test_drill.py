"""The drill: for each known mistake of drill/faults.toml, planted in core/, at least one test has to fail."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import components.core

DRILL = Path(__file__).parent / "drill"
REPOSITORY = Path(components.core.__file__).parent.parent.parent
FAULTS = [
    f"{module}.{name}"
    for module, mistakes in tomllib.loads((DRILL / "faults.toml").read_text()).items()
    for name in mistakes
]


@pytest.fixture(scope="module")
def noticed_by() -> dict[str, str]:
    """The test that failed for each mistake, or nothing."""
    drill = subprocess.run(
        [sys.executable, str(DRILL / "run.py")], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert drill.returncode == 0, drill.stderr
    result: dict[str, str] = json.loads(drill.stdout)
    return result


def test_without_a_mistake_no_test_fails(noticed_by):
    assert noticed_by["control"] == ""


@pytest.mark.parametrize("fault", FAULTS)
def test_the_mistake_is_noticed(fault, noticed_by):
    assert noticed_by[fault] != "", "no test failed"


def test_every_module_is_drilled():
    modules = {path.stem for path in (REPOSITORY / "components" / "core").glob("[a-z]*.py")}
    assert {fault.partition(".")[0] for fault in FAULTS} == modules
    assert len(FAULTS) >= 100
