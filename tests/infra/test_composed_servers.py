"""What the compose file starts, started without containers: its commands and variables, at other addresses."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import psycopg2
import pytest
from moto.server import ThreadedMotoServer
from real_servers import Server, postgres
from tools import INFRA, ROOT, services

from components.processes import free_port

# With what an address may not have unquoted, and what a shell would read.
PASSWORD = "a/b:c@d e'f$g%h"


class Composed:
    """The services of the compose file, with each variable filled in and each address replaced."""

    def __init__(self, folder: Path, addresses: dict[str, str]) -> None:
        self.folder, self.addresses = folder, addresses

    def here(self, text: str) -> str:
        """As it is on this machine."""
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        return re.sub(r"\$\{(\w+)(:\?[^}]*|-)\}", lambda found: f"{PASSWORD} {found[1]}", text)

    def environment(self, service: str) -> dict[str, str]:
        given = {name: self.here(value) for name, value in services()[service]["environment"].items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "PG"))}
        return kept | {"HOME": str(self.folder), "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(self.folder)} | given

    def command(self, service: str) -> list[str]:
        program, *words = [self.here(word) for word in services()[service]["command"]]
        return [sys.executable, *words] if program == "python" else [sys.executable, "-m", program, *words]

    def run(self, service: str, *command: str) -> str:
        """What one of the services that end says, or another command in its place."""
        words = command or self.command(service)
        environment = self.environment(service)
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def started(self, service: str) -> Server:
        """A server that answers where its health check asks; it is the caller's to kill."""
        address = re.search(r"http://[^']+", services()[service]["healthcheck"]["test"][-1])
        assert address
        log = self.folder / f"{service}.log"
        server = Server(self.command(service), self.here(address[0]), log, **self.environment(service))
        server.start()
        return server


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """PostgreSQL with its databases, which asks for passwords, and an object store with its buckets."""
    folder = tmp_path_factory.mktemp("composed")
    store, prefect, mlflow, worker = (free_port() for _ in range(4))
    with postgres() as cluster:
        host, _, port = cluster.partition(":")
        addresses = {
            "postgres:5432": cluster,
            "0.0.0.0": "127.0.0.1",
            ":5000": f":{mlflow}",
            "port=5000": f"port={mlflow}",
            "http://mlflow": "http://127.0.0.1",
            "http://prefect": "http://127.0.0.1",
            "4200": str(prefect),
            "8080": str(worker),
            "http://object-store:9000": f"http://127.0.0.1:{store}",
            "/proximal/infra/compose/mlflow_auth.ini": str(folder / "mlflow_auth.ini"),
            "/proximal": str(ROOT),
        }
        composed = Composed(folder, addresses)
        (folder / "mlflow_auth.ini").write_text(composed.here((INFRA / "compose/mlflow_auth.ini").read_text()))
        _make_databases(composed, host, port)
        server = ThreadedMotoServer("127.0.0.1", store, verbose=False)
        server.start()
        try:
            composed.run("buckets")
            composed.run("buckets")  # again, it is the same
            yield composed
        finally:
            server.stop()


def _make_databases(composed: Composed, host: str, port: str) -> None:
    """As PostgreSQL's image does, whose users have to give their passwords from then on."""
    where = {"PGHOST": host, "PGPORT": port, "POSTGRES_USER": "proximal"}
    script = str(INFRA / "compose/databases.sh")
    subprocess.run([script], env=composed.environment("postgres") | where, check=True)
    administrator = psycopg2.connect(f"host={host} port={port} user=proximal dbname=postgres")
    administrator.autocommit = True
    with administrator.cursor() as cursor:
        cursor.execute("SHOW hba_file")
        (file,) = cursor.fetchone() or ("",)
        Path(file).write_text("host all proximal 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        cursor.execute("SELECT pg_reload_conf()")
    administrator.close()


def _status(url: str, user: str = "") -> int:
    """Of an answer to somebody, or to a user."""
    request = urllib.request.Request(url)
    if user:
        request.add_header("authorization", f"Basic {base64.b64encode(user.encode()).decode()}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


def test_each_database_is_its_users_alone(composed: Composed) -> None:
    host, _, port = composed.addresses["postgres:5432"].partition(":")
    password = composed.environment("mlflow")["PGPASSWORD"]
    psycopg2.connect(host=host, port=port, user="mlflow", dbname="mlflow", password=password).close()
    for change in ({"password": "another"}, {"dbname": "prefect"}):
        asked = {"user": "mlflow", "dbname": "mlflow", "password": password} | change
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(host=host, port=port, **asked).close()


def test_mlflow_asks_for_a_password_and_keeps_files_in_the_object_store(composed: Composed) -> None:
    url = composed.here("http://mlflow:5000")
    server = composed.started("mlflow")
    try:
        secret = composed.environment("worker-cpu")["MLFLOW_TRACKING_PASSWORD"]
        search = f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0"
        assert [_status(search, user) for user in ("", "proximal:no", f"proximal:{secret}")] == [401, 401, 200]
        client = "import mlflow; mlflow.start_run(); mlflow.log_metric('a', 1); mlflow.log_text('said', 'file.txt')"
        composed.run("worker-cpu", sys.executable, "-c", client)
    finally:
        server.kill()
    environment = composed.environment("buckets")
    objects = boto3.client(
        "s3",
        endpoint_url=composed.here("http://object-store:9000"),
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    assert sorted(each["Name"] for each in objects.list_buckets()["Buckets"]) == ["dvc", "mlflow"]
    (kept,) = objects.list_objects_v2(Bucket="mlflow")["Contents"]
    assert kept["Key"].endswith("/artifacts/file.txt")


def test_prefect_asks_for_a_password_and_a_worker_is_well_there(composed: Composed) -> None:
    servers = [composed.started("prefect")]
    try:
        environment = composed.environment("register")
        api = environment["PREFECT_API_URL"]
        users = ("", "proximal:no", environment["PREFECT_API_AUTH_STRING"])
        assert [_status(f"{api}/admin/version", user) for user in users] == [401, 401, 200]
        registered = composed.run("register", sys.executable, "-m", "flows.cli", "deploy")
        assert "rlhf/rlhf" in registered and "(pool gpu" in registered
        servers.append(composed.started("worker-cpu"))
    finally:
        for server in reversed(servers):
            server.kill()


def test_the_object_store_can_hand_over_between_pools(composed: Composed) -> None:
    """Workers know a DVC remote by which stages on other pools get their inputs and return results."""
    asked = "from pathlib import Path; from flows.hand_over import require_remote; require_remote(Path('.'), 'team')"
    composed.run("worker-cpu", sys.executable, "-c", asked)
