"""MLflow's sqlite database, made before anybody works with it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

SQLITE = "sqlite:///"


def artifacts_beside(database: Path) -> str:
    """The folder of its runs' files."""
    return str(database.parent / "mlartifacts")


def make_database(database: Path, experiment: str) -> None:
    """Make the database under another name, then rename it: nobody ever opens one with half its tables."""
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock")):
        if database.exists():
            return
        scratch = database.with_name(f"{database.name}.partial")
        scratch.unlink(missing_ok=True)
        _fill(scratch, experiment, artifacts_beside(database))
        with scratch.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(scratch, database)


def _fill(path: Path, experiment: str, artifact_location: str) -> None:
    """MLflow's tables and the experiment. Hundreds of statements, so none of them waits for the disk."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import Engine, event

    def do_not_wait(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", do_not_wait)
    try:
        store: Any = SqlAlchemyStore(f"{SQLITE}{path}", artifact_location)  # type: ignore[no-untyped-call]
        store.create_experiment(experiment, artifact_location=artifact_location)
        store.engine.dispose()
    finally:
        event.remove(Engine, "connect", do_not_wait)
