"""One machine's service: Prefect's and MLflow's servers, all that is registered, and workers, until interrupted."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import click
import psutil

from components.errors import EnvironmentFault
from components.place import Place
from flows.deploy import POOLS
from flows.environment import set_environment, tracking_uri
from flows.gpus import gpus_here
from flows.left_open import alone
from flows.pages import HOST, MLFLOW_QUIET, mlflow_command
from flows.processes import signal_of, supervised
from flows.server import API_VARIABLE

# Workers first, who still have runs to end and to tell of; then the servers; then whatever is left: within 15 s in all.
_WORKERS_S, _ALL_S = 6.0, 11.0


@dataclass(frozen=True)
class _Service:
    """A process that goes on until the end, under a supervisor."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


def serve_all(repository: Path, prefect_port: int, mlflow_port: int) -> NoReturn:
    """Start everything, say where it is, and go on until Ctrl-C or SIGTERM; servers that the user names are not ours.

    Raises:
        EnvironmentFault: a port is taken, or one of them does not start, or ended.
    """
    set_environment(repository)
    url = os.environ.setdefault(API_VARIABLE, f"http://{HOST}:{prefect_port}/api")
    is_ours = url == f"http://{HOST}:{prefect_port}/api"
    store = tracking_uri(repository)
    servers: list[_Service] = []
    workers: list[_Service] = []
    signal.signal(signal.SIGTERM, _stop)
    with _ended(servers, workers):
        if is_ours:
            servers.append(_start_prefect(repository, prefect_port))
        if not store.startswith("http"):
            servers.append(_start_mlflow(repository, store, mlflow_port))
        if is_ours:
            _wait_for(servers[0], f"{url}/health", servers)
            _end_dead_runs()
        click.echo(f"Prefect     {url.removesuffix('/api')}{_log(servers, 'prefect')}")
        if not store.startswith("http"):
            _wait_for(servers[-1], f"http://{HOST}:{mlflow_port}/health", servers)
            store = f"http://{HOST}:{mlflow_port}, of {store}"
        click.echo(f"MLflow      {store}{_log(servers, 'mlflow')}")
        _run("flows.cli", "deploy")
        for pool in POOLS:
            workers += _start_worker(repository, pool)
        _wait_for_workers(url, workers)
        for worker in workers:
            click.echo(f"{worker.name:<10}  at work{_log(workers, worker.name)}")
        click.echo(f"elsewhere   export {API_VARIABLE}={url}; Ctrl-C ends all of these")
        while True:
            _see_that_all_live([*servers, *workers])
            time.sleep(0.3)


def _start_prefect(repository: Path, port: int) -> _Service:
    _require_free(port, "--prefect-port")
    command = ("prefect", "server", "start", "--host", HOST, "--port", str(port))
    return _start(repository, "prefect", command, {})


def _start_mlflow(repository: Path, store: str, port: int) -> _Service:
    _require_free(port, "--mlflow-port")
    return _start(repository, "mlflow", mlflow_command(store, port), MLFLOW_QUIET)


def _start_worker(repository: Path, pool: str) -> list[_Service]:
    gpus = gpus_here()
    if pool == "gpu" and not gpus:
        click.echo("worker gpu  none: no NVIDIA GPU here; where one is: prefect worker start --pool gpu")
        return []
    limit = ("--limit", str(gpus)) if pool == "gpu" else ()
    command = ("prefect", "worker", "start", "--pool", pool, "--name", _name(pool), *limit)
    return [_start(repository, f"worker {pool}", command, {})]


def _start(repository: Path, name: str, module: Sequence[str], variables: dict[str, str]) -> _Service:
    log = Place(repository).work / "logs" / f"{name.replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*supervised(), sys.executable, "-m", *module],
            cwd=repository,
            env={**os.environ, "PROXIMAL_REPOSITORY": str(repository.resolve()), **variables},  # for stages from afar
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for this process, which ends them in order
        )
    return _Service(name, process, log)


def _require_free(port: int, option: str) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as fault:
            raise EnvironmentFault(
                "another server listens there",
                where=f"{HOST}:{port}",
                expected="a free port",
                do=f"end that server, or name another port with {option}",
            ) from fault


def _wait_for(service: _Service, url: str, services: Sequence[_Service]) -> None:
    deadline = time.monotonic() + _patience_s()
    while True:
        _see_that_all_live(services)
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            if time.monotonic() > deadline:
                raise _ended_early(service, "it does not answer") from None
            time.sleep(0.1)


def _end_dead_runs() -> None:
    """Those of a service that was killed; this one works with the database now, so that a `proximal run` ends none."""
    with alone(Path(os.environ["PREFECT_HOME"])) as is_alone:
        if is_alone:
            _run("flows.left_open")


def _run(*module: str) -> None:
    """In a process of its own: one that has imported Prefect waits at its end for a server that is gone by then."""
    sys.stdout.flush()
    done = subprocess.run([*supervised(), sys.executable, "-m", *module])
    if done.returncode:  # it has said why
        sys.exit(done.returncode)


def _wait_for_workers(url: str, workers: Sequence[_Service]) -> None:
    """Until the server has heard of each."""
    deadline = time.monotonic() + _patience_s()
    for worker in workers:
        pool = worker.name.removeprefix("worker ")
        headers = {"content-type": "application/json", **_authorization()}
        asked = urllib.request.Request(f"{url}/work_pools/{pool}/workers/filter", b"{}", headers)
        while True:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                if any(found["name"] == _name(pool) and found["status"] == "ONLINE" for found in json.load(answer)):
                    break
            _see_that_all_live(workers)
            if time.monotonic() > deadline:
                raise _ended_early(worker, "it does not poll")
            time.sleep(0.2)


def _authorization() -> dict[str, str]:
    """What a server with a password is shown, as Prefect's own client does."""
    told = os.environ.get("PREFECT_API_AUTH_STRING")
    return {"authorization": f"Basic {base64.b64encode(told.encode()).decode()}"} if told else {}


def _name(pool: str) -> str:
    """Of this machine's worker."""
    return f"{socket.gethostname()} {pool}"


def _patience_s() -> float:
    return float(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"])


def _see_that_all_live(services: Sequence[_Service]) -> None:
    for service in services:
        if (status := service.process.poll()) is not None:
            killed = signal_of(status)
            raise _ended_early(service, f"killed by {killed}" if killed else f"exit status {status}")


def _ended_early(service: _Service, how: str) -> EnvironmentFault:
    lines = [line for line in service.log.read_text(errors="replace").splitlines() if line.strip()]
    return EnvironmentFault(
        "a part of the service has ended, and all others with it",
        where=f"{service.name}: {service.log}",
        expected="one that goes on",
        found=f"{how}: {' / '.join(lines[-3:])}",
        do="read that file, and start the service again: what was queued is still there",
    )


def _log(services: Sequence[_Service], name: str) -> str:
    return "".join(f"  ({service.log})" for service in services if service.name == name)


def _stop(number: int, _frame: Any) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


@contextmanager
def _ended(servers: list[_Service], workers: list[_Service]) -> Iterator[None]:
    """However the block ends, nothing of them is left after it."""
    try:
        yield
    finally:
        began = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for services, seconds in ((workers, _WORKERS_S), (servers, _ALL_S)):
            for service in services:
                service.process.terminate()
            for service in services:
                _wait(service.process, began + seconds - time.monotonic())
        for process in psutil.Process().children(recursive=True):
            process.kill()
        for service in [*servers, *workers]:
            service.process.wait()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(timeout=max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        return
