"""The way to the tracking store: which one, made safely when it is absent, its faults in plain words."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from components.disk import disk_faults
from components.errors import ConfigError, EnvironmentFault
from components.tracking.database import SQLITE, artifacts_beside, make_database
from components.tracking.pages import EXPERIMENT_TAGS, runs_page

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "proximal"
_URI_VARIABLE = "MLFLOW_TRACKING_URI"
# Answers of a server, or of what stands before it, that another try may not get.
_AWAY = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED")
_TRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
# MLflow tries again at once, then after 6, 12, 24 and 48 seconds: a server that is away for a minute is waited for.
_PATIENCE = {_TRIES: "5", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "3"}
_hasty = {"caller": False, "spent": False}  # who asks once only: a caller that comes again, all after a wait in vain


class StoreAway(EnvironmentFault):
    """The tracking server, or its database, does not answer: another time it may."""


def tracking_uri() -> str:
    """$MLFLOW_TRACKING_URI, or the sqlite database mlflow.db in the root of the repository.

    Raises:
        ConfigError: a relative sqlite path: a stage that starts elsewhere would fill another database.
    """
    uri = os.environ.get(_URI_VARIABLE) or f"{SQLITE}{repository() / 'mlflow.db'}"
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_absolute():
        raise ConfigError(
            "the tracking store is given by a relative path",
            where=_URI_VARIABLE,
            expected="sqlite:/// and an absolute path, or the URL of a server",
            found=uri,
            do="write the whole path, or unset the variable to use mlflow.db in this repository",
        )
    return uri


def repository() -> Path:
    """The present folder; where it is a temporary one of DVC's (REPOSITORY/.dvc/tmp/exps/...), the repository."""
    here = Path.cwd()
    for folder in here.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return here


def is_empty() -> bool:
    """True when nothing can have been recorded yet, because the database does not exist."""
    database = _sqlite_file(tracking_uri())
    return database is not None and not database.exists()


def client() -> MlflowClient:
    """The client of the tracking store; a sqlite database that does not exist is made first."""
    return _client(tracking_uri())


def experiment_id() -> str:
    """The experiment that holds every run of this project.

    Raises:
        EnvironmentFault: the store was moved here from another folder.
    """
    return _experiment_id(tracking_uri())


def server_url(port: int = 5000) -> str:
    """What serves the pages of this store: the tracking server, else `proximal ui` at this port, while it runs.

    Without a name and a password, which people are not shown.
    """
    uri = tracking_uri()
    if not uri.startswith("http"):
        return f"http://127.0.0.1:{port}"
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def runs_url(port: int = 5000) -> str:
    """Where a browser finds all pipelines side by side; see `server_url`."""
    return runs_page(server_url(port), experiment_id())


@contextmanager
def tracking_faults() -> Iterator[None]:
    """Turn what MLflow or its database raises into an error that names the store.

    Raises:
        StoreAway: the server, or its database, does not answer.
        EnvironmentFault: the store is damaged, full, of another MLflow version, or refuses what it is told.
    """
    _load_mlflow()
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with disk_faults(_sqlite_file(tracking_uri()) or Path.cwd()):
            yield
        _be_hasty(spent=False)
    except (MlflowException, RequestException, SQLAlchemyError) as fault:
        if _is_away(fault):
            _be_hasty(spent=True)
            raise StoreAway(
                "the tracking store does not answer",
                where=name(),
                expected="a server that answers",
                found=first_line(fault),
                do="see that it runs and can be reached (MLFLOW_TRACKING_URI)",
            ) from fault
        raise EnvironmentFault(
            "the tracking store failed",
            where=name(),
            expected="an MLflow store that answers",
            found=first_line(fault),
            do="see that it is reachable, has room and fits this MLflow version (`mlflow db upgrade`)",
        ) from fault


def _is_away(fault: Exception) -> bool:
    """Not where the database is a file: who cannot read that now cannot read it later."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import InterfaceError, OperationalError

    if _sqlite_file(tracking_uri()) is not None:
        return False
    if isinstance(fault, MlflowException):
        return fault.error_code in _AWAY
    answered = getattr(fault, "response", None)  # of an upload
    refused = answered is not None and answered.status_code < 500
    return isinstance(fault, OSError | OperationalError | InterfaceError) and not refused


@contextmanager
def impatient() -> Iterator[None]:
    """Ask once, and let the caller come again: for who has other work meanwhile."""
    _load_mlflow()
    before = _hasty["caller"]
    _be_hasty(caller=True)
    try:
        yield
    finally:
        _be_hasty(caller=before)


def _be_hasty(**why: bool) -> None:
    if why.items() <= _hasty.items():
        return
    _hasty.update(why)
    os.environ[_TRIES] = "0" if any(_hasty.values()) else _chosen_tries()


@cache
def _chosen_tries() -> str:
    """The user's number of tries, or ours; asked for the first time before it is changed."""
    return os.environ[_TRIES]


def name() -> str:
    """The store without what gives access to it: for messages and files."""
    uri = tracking_uri()
    parts = urlsplit(uri)
    return uri if "@" not in parts.netloc else parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def first_line(fault: BaseException) -> str:
    """One line that says what an exception says."""
    lines = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0]}" if lines else type(fault).__name__


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def _artifact_location(uri: str) -> str | None:
    """Beside a sqlite database; a server knows its own place."""
    database = _sqlite_file(uri)
    return None if database is None else artifacts_beside(database)


@cache
def _client(uri: str) -> MlflowClient:
    with tracking_faults(), _garbage_collector_off():
        from mlflow import MlflowClient

        if (database := _sqlite_file(uri)) is not None:
            make_database(database, EXPERIMENT)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@cache
def _load_mlflow() -> None:
    """Import MLflow, silent and with its telemetry off."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # beside what a command answers
    for variable, value in _PATIENCE.items():
        os.environ.setdefault(variable, value)
    _chosen_tries()
    with _garbage_collector_off():
        import mlflow  # noqa: F401
    for talkative in ("mlflow", "alembic"):  # importing MLflow sets its own level
        logging.getLogger(talkative).setLevel(logging.WARNING)


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    """The imports make hundreds of thousands of objects that stay; looking for garbage is a fifth of their time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@cache
def _experiment_id(uri: str) -> str:
    from mlflow.exceptions import MlflowException

    with tracking_faults():
        while (experiment := client().get_experiment_by_name(EXPERIMENT)) is None:
            try:
                client().create_experiment(EXPERIMENT, artifact_location=_artifact_location(uri))
            except MlflowException as fault:
                if fault.error_code != "RESOURCE_ALREADY_EXISTS":  # another process was faster
                    raise
    _require_own_place(uri, str(experiment.artifact_location))
    with tracking_faults():
        for name, value in EXPERIMENT_TAGS.items():
            if experiment.tags.get(name) != value:
                client().set_experiment_tag(experiment.experiment_id, name, value)
    return str(experiment.experiment_id)


def _require_own_place(uri: str, location: str) -> None:
    """MLflow keeps absolute paths: a store that was moved or copied would go on writing where it was.

    Raises:
        EnvironmentFault: the experiment's artifacts belong beside another database.
    """
    expected = _artifact_location(uri)
    if expected is None or Path(location).name != Path(expected).name:  # a server's, or a place that somebody chose
        return
    was, now = Path(location.removeprefix("file://")).parent, Path(expected).parent
    if was.resolve() != now.resolve():
        raise EnvironmentFault(
            "the tracking store was made in another folder, and its artifacts would still be written there",
            where=str(_sqlite_file(uri)),
            expected=expected,
            found=location,
            do=f"if the folder was moved, leave a link at its old place: `ln -s {now} {was}`; for a new store (DVC has "
            f"all that was computed) set mlflow.db* and mlartifacts in {now} aside",
        )
