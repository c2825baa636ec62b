"""What must be there of a vLLM before anything is paid for: its program, or a server that can what is asked of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from components.config import Params, VllmAtUrl, VllmStarted
from components.engines.vllm_client import Client
from components.errors import ConfigError

_WEIGHTS = ("/collective_rpc", "/reset_prefix_cache")
_ADAPTERS = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
_SLEEP = ("/sleep", "/wake_up", "/is_sleeping")


class Served(NamedTuple):
    """The model that a server serves; tokens: the longest sequence, of prompt and response together."""

    name: str
    tokens: int


def require_engine(params: Params, root: Path, *, on_cpu: bool) -> None:
    """Refuse an engine of rollouts that is not there. No torch is needed to look.

    Args:
        on_cpu: whether the policy trains on CPUs.
    Raises:
        ConfigError: no such program; a server that is no vLLM, or lacks what a run asks of it.
        EnvironmentFault: nobody answers at the address.
    """
    settings = params.generation
    if isinstance(settings, VllmStarted):
        if settings.sleeps and on_cpu:
            raise ConfigError(
                "vLLM has nothing to give back while the policy trains on a CPU",
                where="generation.sleeps",
                expected="false: it frees a GPU's memory, and on a CPU vLLM does not start with it",
                found="true, and compute.accelerate_config has use_cpu: true",
                do="set it to false",
            )
        program = settings.command[0]
        if shutil.which(str(root / program) if "/" in program else program) is None:
            raise ConfigError(
                "vLLM is not installed there",
                where="generation.command",
                expected="a program, such as .venv-vllm/bin/vllm, or one that is found on PATH",
                found=program,
                do="name it, or make one for CPUs with `make vllm`",
            )
    if isinstance(settings, VllmAtUrl):
        model = params.language_model
        client = Client(
            settings.url,
            key="generation.url",
            timeout_seconds=settings.timeout_seconds,
            requests_at_once=1,
        )
        tokens = model.max_prompt_tokens + model.max_response_tokens
        require_server(client, takes_adapters=model.adapter is not None, tokens=tokens, sleeps=settings.sleeps)


def require_server(client: Client, *, takes_adapters: bool, tokens: int, sleeps: bool = False) -> None:
    """Refuse a server that cannot take the policy's weights, or its longest sequences.

    Raises:
        ConfigError: it is no vLLM or lacks an endpoint.
        EnvironmentFault: nobody answers.
    """
    version = client.get("/version")
    if not isinstance(version, dict) or "version" not in version:
        raise client.refusal(
            "what answers is no vLLM",
            expected='{"version": ...} from /version',
            found=str(version)[:200],
            do="name the address of a vLLM server, without a path",
        )
    served = served_model(client)
    if served.tokens < tokens:
        raise client.refusal(
            "prompt and response are longer together than vLLM was started for",
            expected=f"--max-model-len {tokens} or more: language_model.max_prompt_tokens + max_response_tokens",
            found=str(served.tokens),
            do="start it so, or lower one of them",
        )
    needed = (*(_ADAPTERS if takes_adapters else _WEIGHTS), *(_SLEEP if sleeps else ()))
    there: Any = client.get("/openapi.json")
    paths = there.get("paths", {}) if isinstance(there, dict) else {}
    if lacking := [path for path in needed if path not in paths]:
        raise client.refusal(
            "vLLM was not started so that its weights can be changed",
            expected=", ".join(needed),
            found=f"no {', '.join(lacking)}",
            do="start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora for adapters, "
            "VLLM_SERVER_DEV_MODE=1 for whole weights, --enable-sleep-mode to sleep",
        )


def is_asleep(client: Client) -> bool:
    """Whether a server sleeps. Raises: ConfigError or EnvironmentFault, it does not say."""
    answer = client.get("/is_sleeping")
    if not isinstance(answer, dict) or not isinstance(answer.get("is_sleeping"), bool):
        raise client.refusal(
            "vLLM does not say whether it sleeps",
            expected='{"is_sleeping": true} or false from /is_sleeping',
            found=str(answer)[:200],
            do="this was written for version 0.32",
        )
    return bool(answer["is_sleeping"])


def served_model(client: Client) -> Served:
    """The one model of a server, adapters aside. Raises: ConfigError, there is none, or are several."""
    listed = client.get("/v1/models")
    try:
        models = [each for each in listed["data"] if each.get("parent") is None]
        (model,) = {str(each["root"]): each for each in models}.values()  # one model may have several names
        return Served(str(model["id"]), int(model["max_model_len"]))
    except (TypeError, KeyError, ValueError, AttributeError) as fault:
        raise client.refusal(
            "vLLM serves no single model",
            expected="one model in /v1/models, with its max_model_len",
            found=" ".join(str(listed).split())[:300],
            do="name the address of a server that serves this run's model alone",
        ) from fault
