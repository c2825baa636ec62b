"""All that a Prefect server needs of this project: pools, deployments, automations, a limit. Again, it is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ruamel.yaml import YAML

from components.errors import ConfigError, EnvironmentFault
from flows.gpus import LIMIT, gpus_here
from flows.server import API_VARIABLE

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOLS = ("cpu", "gpu")
NOTIFY_VARIABLE = "PROXIMAL_NOTIFY_URL"
_INFRA = Path("infra")
_BLOCK = "proximal"  # by which people are told


class Deployment(NamedTuple):
    """What stands on the server: its full name, where it runs, and when by itself."""

    name: str
    pool: str
    schedules: tuple[str, ...]
    triggers: int

    def line(self) -> str:
        """The same for people."""
        by_itself = [*self.schedules, *(["on an event"] if self.triggers else [])]
        return f"{self.name} (pool {self.pool}; {', '.join(by_itself) or 'when asked to'})"


def deploy(repository: Path) -> list[Deployment]:
    """Register everything on the server that PREFECT_API_URL names; what somebody changed of pools and limits stays.

    Raises:
        ConfigError: no server is named, or PROXIMAL_NOTIFY_URL is no address.
        EnvironmentFault: it does not answer, or Prefect cannot.
    """
    url = os.environ.get(API_VARIABLE)
    if not url:
        raise ConfigError(
            "no Prefect server is named",
            where=API_VARIABLE,
            expected="the API of a server that runs, such as http://127.0.0.1:4200/api",
            found="nothing",
            do="`make serve-all` starts one with all that belongs to it; or export the variable",
        )
    from prefect.client.orchestration import get_client

    with _faults(url), get_client(sync_client=True) as client:
        if (fault := client.api_healthcheck()) is not None:
            raise fault
        _make_pools(client)
        _renew_automations(client, repository / _INFRA / "automations.yaml")
        if (address := os.environ.get(NOTIFY_VARIABLE)) is not None:
            _renew_automations(client, repository / _INFRA / "notifications.yaml", _notifying_block(address))
        _make_limit(client)
        _register(repository)
        return _deployments(client, repository)


def notifications() -> str:
    """Whether people are told of runs that fail, are refused or have bad figures, for people."""
    if NOTIFY_VARIABLE in os.environ:
        return f"to the address of {NOTIFY_VARIABLE}"
    return f"nothing is changed: {NOTIFY_VARIABLE} is not set, to the webhook that people are told by"


def _make_pools(client: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    for pool in POOLS:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=pool, type=ProcessWorker.type, base_job_template=template))


def _notifying_block(address: str) -> str:
    """The id of the block that notifications go by; the address may hold a secret, and is kept as one.

    Raises:
        ConfigError: it is no address.
    """
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.types import SecretDict

    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise ConfigError(
            "this is no address that notifications can be sent to",
            where=NOTIFY_VARIABLE,
            expected="http:// or https://, a host, and what else the receiver wants",
            found="something else, which may hold a secret and is not shown",
            do="set it to the webhook of your chat, or unset it",
        )
    block = CustomWebhookNotificationBlock(
        name="Proximal",
        url="{{address}}",
        json_data={"text": "{{subject}}\n{{body}}"},
        headers=None,
        cookies=None,
        secrets=SecretDict({"address": address}),
    )
    return str(block.save(_BLOCK, overwrite=True))


def _renew_automations(client: SyncPrefectClient, file: Path, block: str | None = None) -> None:
    """By name: the first of a name becomes what the file says, further ones go.

    Args:
        block: by which their notifications are sent.
    """
    from prefect.events.schemas.automations import AutomationCore

    for described in YAML(typ="safe").load(file)["automations"]:
        actions = [
            each | ({"block_document_id": block} if each["type"] == "send-notification" else {})
            for each in described["actions"]
        ]
        automation = AutomationCore.model_validate(described | {"actions": actions})
        there = client.read_automations_by_name(automation.name)
        if not there:
            client.create_automation(automation)
            continue
        client.update_automation(there[0].id, automation)
        for double in there[1:]:
            client.delete_automation(double.id)


def _make_limit(client: SyncPrefectClient) -> None:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=max(1, gpus_here())))


def _register(repository: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    command += ["--prefect-file", str(_INFRA / "prefect.yaml")]
    environment = {**os.environ, "PROXIMAL_REPOSITORY": str(repository.resolve()), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise EnvironmentFault(
            "Prefect cannot register the deployments",
            where=str(repository / _INFRA / "prefect.yaml"),
            found="\n".join((done.stdout + done.stderr).strip().splitlines()[-5:]),
            do="mend what it names; `make deploy` again goes on from there",
        )


def _deployments(client: SyncPrefectClient, repository: Path) -> list[Deployment]:
    described = YAML(typ="safe").load(repository / _INFRA / "prefect.yaml")["deployments"]
    names = [(each["name"], each["entrypoint"]) for each in described]
    there = {(each.name, each.entrypoint): each for each in client.read_deployments()}
    return [
        Deployment(
            name=f"{client.read_flow(found.flow_id).name}/{found.name}",
            pool=str(found.work_pool_name),
            schedules=tuple(_schedule(each.schedule) for each in found.schedules),
            triggers=len(client.read_resource_related_automations(f"prefect.deployment.{found.id}")),
        )
        for found in (there[name] for name in names)
    ]


def _schedule(schedule: Any) -> str:
    cron = getattr(schedule, "cron", None)
    return f"cron {cron} {schedule.timezone}" if cron else type(schedule).__name__


@contextmanager
def _faults(url: str) -> Iterator[None]:
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        yield
    except (httpx.HTTPError, PrefectHTTPStatusError) as fault:
        raise EnvironmentFault(
            "the Prefect server does not do what it is asked",
            where=url,
            expected=f"the server that {API_VARIABLE} names",
            found=" ".join(str(fault).split()) or type(fault).__name__,
            do="see that it runs there, and do the same again",
        ) from fault
