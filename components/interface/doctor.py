"""Whether this machine and this folder are fit for a run: what was found, and what mends it where they are not."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.config import load_params
from components.config.accelerate import accelerate_config
from components.config.cpu import bfloat16_instructions, model_name
from components.digests import digest
from components.errors import ConfigError, ProximalError
from components.place import Place
from components.repository import is_committed, last_commit, require_git
from components.tracking.dvc_files import dvc_cache, pinned_data
from components.tracking.store import tracking_uri

_PACKAGE = "proximal-rlhf"
_GIB = 1 << 30
_FREE_GIB = 5.0  # the shipped pipeline keeps 0.2 GiB a run; a checkpoint of half a billion weights is 2 GiB
_MEMORY_GIB = 4.0  # the shipped pipeline takes 1.7 GiB
_STYLE = {"ok": "green", "warning": "yellow", "fault": "red"}


class Finding(NamedTuple):
    """One thing that was looked at; `do` says what mends it, where it needs mending."""

    what: str
    state: Literal["ok", "warning", "fault"]
    found: str
    do: str = ""


def examine(root: Path) -> Iterator[Finding]:
    """Look at everything that a run in this folder rests on, the quick things first."""
    yield _python()
    yield _git(root)
    yield _params(root)
    yield _data(root)
    yield from _disk(root)
    yield _memory()
    yield _cpu()
    yield _gpu(root)
    yield _mlflow()
    yield _prefect()


def print_findings(root: Path) -> bool:
    """Print every finding as it comes; gives whether nothing stands in the way of a run."""
    console = Console()
    fit = True
    for finding in examine(root):
        fit = fit and finding.state != "fault"
        table = Table.grid(padding=(0, 1), expand=False)
        table.add_column(width=7)
        table.add_column(width=11)
        table.add_column(overflow="fold")
        table.add_row(Text(finding.state, style=_STYLE[finding.state]), finding.what, Text(finding.found))
        if finding.do:
            table.add_row("", "", Text(f"what to do: {finding.do}"))
        console.print(table)
    return fit


def _python() -> Finding:
    found = f"{platform.python_version()}, {sys.executable}"
    fitting = SpecifierSet(metadata(_PACKAGE)["Requires-Python"])
    if platform.python_version() in fitting:
        return Finding("Python", "ok", found)
    return Finding("Python", "fault", found, f"Python {fitting} is needed: `rm -r .venv`, `make setup PYTHON=...`")


def _git(root: Path) -> Finding:
    try:
        require_git(root)
    except ProximalError as error:
        return Finding("git", "fault", error.what, error.do)
    commit = last_commit(root)
    if not commit:
        return Finding("git", "fault", "no commit here", "`git add --all`, `git commit --message start`")
    if not is_committed(Place(root).params):
        do = "commit it, or `git init` here if the repository around this folder is another's"
        return Finding("git", "fault", f"params.yaml is not in commit {commit}", do)
    return Finding("git", "ok", f"commit {commit}")


def _params(root: Path) -> Finding:
    try:
        params = load_params(root / "params.yaml")
        accelerate = accelerate_config(root / params.compute.accelerate_config)
    except ProximalError as error:
        return Finding("params", "fault", " ".join(str(error).split()), "mend what it names")
    processes, precision = accelerate.num_processes, accelerate.mixed_precision
    found = f"method {params.method}, {processes} process{'es' if processes > 1 else ''}, mixed_precision {precision}"
    return Finding("params", "ok", found)


def _data(root: Path) -> Finding:
    data, pinned = root / "data", pinned_data(root)
    if not data.is_dir():
        return Finding("data", "fault", "no folder data", "`dvc pull data.dvc` brings what data.dvc names")
    if pinned is None:
        return Finding("data", "warning", "data is not pinned", "`dvc add data`, so that a run can say what it read")
    if (found := digest(data)) != pinned:
        return Finding(
            "data",
            "warning",
            f"is another than data.dvc names ({found} instead of {pinned})",
            "`dvc add data` pins what is there; `dvc checkout data.dvc` brings back what was",
        )
    return Finding("data", "ok", f"as data.dvc names it, {pinned}")


def _disk(root: Path) -> Iterator[Finding]:
    try:
        cache = dvc_cache(root)
    except ProximalError as error:
        yield Finding("DVC's cache", "fault", " ".join(str(error).split()), "run from the root of the repository")
        return
    used = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) if cache.exists() else 0
    yield Finding("DVC's cache", "ok", f"{cache}, {used / _GIB:.1f} GiB")
    for name, folder in (("disk", root), ("its disk", cache if cache.exists() else root)):
        if name == "its disk" and os.stat(folder).st_dev == os.stat(root).st_dev:
            continue
        free = shutil.disk_usage(folder).free / _GIB
        if free >= _FREE_GIB:
            yield Finding(name, "ok", f"{free:.0f} GiB free")
        else:
            do = f"make room: below {_FREE_GIB:g} GiB a run may end half-way; `dvc gc --workspace` drops old results"
            yield Finding(name, "warning", f"{free:.1f} GiB free", do)


def _memory() -> Finding:
    free = psutil.virtual_memory().available / _GIB
    if free >= _MEMORY_GIB:
        return Finding("memory", "ok", f"{free:.0f} GiB available")
    return Finding("memory", "warning", f"{free:.1f} GiB available", "end other programs, or lower `microbatch_size`")


def _cpu() -> Finding:
    flags = bfloat16_instructions()
    speaks = f"multiplies in bfloat16 ({', '.join(flags)})" if flags else "has no bfloat16 instructions"
    return Finding("CPU", "ok", f"{model_name() or platform.machine()}, {os.cpu_count()} cores, {speaks}")


def _gpu(root: Path) -> Finding:
    """Those that are here, and whether they are those that params ask for."""
    if importlib.util.find_spec("torch") is None:
        return Finding("GPU", "fault", "torch is not installed", "`make setup`")
    import torch

    from components.training.requirements import require_devices

    try:
        config = accelerate_config(root / load_params(root / "params.yaml").compute.accelerate_config)
        require_devices(config)
    except ConfigError as error:
        if "GPU" in error.what:
            return Finding("GPU", "fault", f"{error.found}; {error.where} needs {error.expected}", error.do)
        config = None  # told of where params are looked at
    each = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    if not each:
        return Finding("GPU", "ok", f"none that torch {torch.__version__} sees: it computes on the CPU")
    names = ", ".join(f"{one.name} ({one.total_memory / _GIB:.0f} GiB)" for one in each)
    unused = "; params compute on the CPU (compute.accelerate_config)" if config is not None and config.use_cpu else ""
    return Finding("GPU", "ok", f"{names}; torch {torch.__version__}{unused}")


def _mlflow() -> Finding:
    try:
        uri = tracking_uri()
    except ProximalError as error:
        return Finding("MLflow", "fault", " ".join(str(error).split()), "mend MLFLOW_TRACKING_URI")
    if not uri.startswith("http"):
        return Finding("MLflow", "ok", uri)
    return _server("MLflow", uri, f"{uri}/health", "start it, or unset MLFLOW_TRACKING_URI for a store of this folder")


def _prefect() -> Finding:
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        return Finding("Prefect", "ok", "a server of the run's own: PREFECT_API_URL is not set")
    return _server("Prefect", api, f"{api}/health", "start it, or unset PREFECT_API_URL for a server of the run's own")


def _server(what: str, name: str, health: str, do: str) -> Finding:
    try:
        with urllib.request.urlopen(health, timeout=5):
            return Finding(what, "ok", f"{name} answers")
    except (urllib.error.URLError, TimeoutError, ConnectionError) as fault:
        return Finding(what, "fault", f"{name} does not answer: {fault}", do)
