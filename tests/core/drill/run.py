"""Plants each mistake of faults.toml and says which test notices it.

    python tests/core/drill/run.py                    all, as JSON: {"module.fault": "failed test" or ""}
    python tests/core/drill/run.py kl.k3_overflows    some of them

For each one a process is forked that has torch and pytest loaded but nothing of components/core. There the
module is run from its source with the mistake in it and takes its place; then the tests of that module, and
after them those of purity, run to the first failure. The files on disk are never touched. "control" plants
nothing.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import multiprocessing
import os
import sys
import tomllib
from pathlib import Path

import hypothesis
import hypothesis.strategies
import pytest
import torch
import torch.testing

import components.core

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
CORE = Path(components.core.__file__).resolve().parent
# A mistake has to give wrong numbers. One that only breaks the code would be noticed by anything.
BROKEN_CODE = (NameError, ImportError, SyntaxError, AttributeError, TypeError)


class FirstFailure:
    """Remembers which test failed first, and why."""

    def __init__(self) -> None:
        self.test = ""
        self.broken_code = ""

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]):
        report = (yield).get_result()
        if report.failed and not self.test and call.excinfo is not None:
            self.test = item.nodeid.rpartition("/")[2]
            if issubclass(call.excinfo.type, BROKEN_CODE):
                self.broken_code = repr(call.excinfo.value)


def plant(module: str, says: str, mistake: str) -> None:
    """Put a module into sys.modules that is run from its source with the mistake in it."""
    path = CORE / f"{module}.py"
    source = path.read_text()
    if source.count(says) != 1:
        raise RuntimeError(f"{module}.py says {says!r} {source.count(says)} times, expected once: mend faults.toml")
    name = f"components.core.{module}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    planted = importlib.util.module_from_spec(spec)
    sys.modules[name] = planted
    exec(compile(source.replace(says, mistake), f"{path} with a mistake", "exec"), vars(planted))
    setattr(components.core, module, planted)


def tests_of(module: str) -> list[str]:
    """test_<module>.py, and test_<module>_<subject>.py where there is more of it than one file holds."""
    return [f"test_{module}.py", *sorted(path.name for path in TESTS.glob(f"test_{module}_*.py"))]


def drill(fault: tuple[str, str, str, str]) -> tuple[str, str]:
    name, module, says, mistake = fault
    if module:
        plant(module, says, mistake)
        files = [*tests_of(module), "test_purity.py"]
    else:
        files = [file for path in sorted(CORE.glob("[a-z]*.py")) for file in tests_of(path.stem)] + ["test_purity.py"]
    options = ["-x", "--noconftest", "--tb=no", "--assert=plain", "-o", "addopts="]
    # without a cache on disk, and without what costs time and says nothing about a test
    for plugin in ("cacheprovider", "warnings", "unraisableexception", "threadexception"):
        options += ["-p", f"no:{plugin}"]
    failure = FirstFailure()
    for file in files:
        status = pytest.main([*options, str(TESTS / file)], plugins=[failure])
        if failure.broken_code or status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            raise RuntimeError(f"{name} is no mistake but broken code: {failure.broken_code or status!r}")
        if failure.test:
            break
    return name, failure.test


def quiet() -> None:
    """The tests that fail here are meant to: what they print is of no use."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)


def faults() -> list[tuple[str, str, str, str]]:
    planted = tomllib.loads((HERE / "faults.toml").read_text())
    return [
        (f"{module}.{name}", module, says, mistake)
        for module, mistakes in planted.items()
        for name, (says, mistake) in mistakes.items()
    ]


def warm_up() -> None:
    """Load once, before the forks, what every run of the tests would load by itself."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    # A mistake is noticed by the first example that shows it; a smaller one would not be looked at.
    generate = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile(
        "drill", database=None, deadline=None, derandomize=True, max_examples=10, phases=generate
    )
    hypothesis.settings.load_profile("drill")
    torch.testing.assert_close(torch.zeros(1), torch.zeros(1))
    hypothesis.given(hypothesis.strategies.floats(0, 1))(lambda number: None)()
    gc.freeze()  # what is loaded stays: a collection in a fork would only copy all of its memory


def main(names: list[str]) -> None:
    warm_up()
    assert not any(name.startswith("components.core.") for name in sys.modules)
    chosen = [fault for fault in [("control", "", "", ""), *faults()] if not names or fault[0] in names]
    workers = min(4, os.cpu_count() or 1)
    with multiprocessing.get_context("fork").Pool(workers, initializer=quiet, maxtasksperchild=1) as pool:
        print(json.dumps(dict(pool.imap_unordered(drill, chosen)), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
