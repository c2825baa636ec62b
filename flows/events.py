"""What this project says to Prefect's servers by events: that there is more data, that a run's figures are bad."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from components.errors import EnvironmentFault

MORE_DATA, DATA = "proximal.comparisons.new", "proximal.data"  # infra/prefect.yaml listens
KL_ABOVE_CEILING, PROXY_RISING = "proximal.kl.above_ceiling", "proximal.proxy.rising"  # infra/notifications.yaml


def api_url() -> str | None:
    """The API of the Prefect server that PREFECT_API_URL or Prefect's profile names, which answers; None without one.

    Raises:
        EnvironmentFault: it does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    if not (url := PREFECT_API_URL.value()):
        return None
    with get_client(sync_client=True) as client:
        if (fault := client.api_healthcheck()) is not None:
            raise _does_not_answer(url, fault) from fault
    return str(url)


def announce_data(url: str, payload: Mapping[str, Any]) -> None:
    """Emit the event of more data.

    Raises:
        EnvironmentFault: the server did not take it.
    """
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        emit(MORE_DATA, {"prefect.resource.id": DATA}, payload)
    except (httpx.HTTPError, PrefectHTTPStatusError) as fault:
        raise _does_not_answer(url, fault) from fault


def emit(name: str, resource: Mapping[str, str], payload: Mapping[str, Any]) -> None:
    """Emit an event, as a plain `POST /api/events` does: taken when this returns.

    Raises:
        httpx.HTTPError: the server did not take it.
    """
    from prefect.client.orchestration import get_client

    event = {
        "id": str(uuid.uuid4()),
        "event": name,
        "occurred": datetime.now(UTC).isoformat(),
        "resource": dict(resource),
        "payload": dict(payload),
    }
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event])


def _does_not_answer(url: str, fault: Exception) -> EnvironmentFault:
    return EnvironmentFault(
        "the Prefect server does not take events",
        where=url,
        expected="the server that PREFECT_API_URL names",
        found=" ".join(str(fault).split()) or type(fault).__name__,
        do="start it, or unset PREFECT_API_URL to add data without an event; `prefect deployment run rlhf/rlhf` starts "
        "a run without one",
    )
