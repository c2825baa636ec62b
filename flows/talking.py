"""The commands by which people and programs talk to a policy."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path

import click
from click.core import ParameterSource

from components.interface.asking import TOKEN_VARIABLE, Asking
from flows import completion
from flows.environment import set_environment
from flows.preconditions import require_repository
from flows.web_page import HOST, WebPage


@click.command(short_help="Talk to a policy, at the terminal or on a page.")
@click.argument("policy", metavar="[FOLDER_OR_MODEL]", required=False, shell_complete=completion.policies)
@click.option("--compare", "other", metavar="FOLDER_OR_MODEL", shell_complete=completion.policies,
              help="Another policy, whose answers stand beside the first one's.")  # fmt: skip
@click.option("--temperature", type=click.FloatRange(min=0), help="0 is greedy; the params' own without it.")
@click.option("--seed", type=int, help="The params' own without it.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Of an answer; the params' own without it.")
@click.option("--page", "on_page", is_flag=True,
              help="Serve a page; without a policy, the SFT policy and the champion answer side by side.")  # fmt: skip
@click.option("--host", default=HOST, show_default=True, help="Of the page; any but this machine's own needs a token.")
@click.option("--port", type=int, default=8502, show_default=True, help="Of the page.")
@click.option("--token", envvar=TOKEN_VARIABLE, help=f"What people must know on the page; or {TOKEN_VARIABLE}.")
@click.pass_context
def chat(
    context: click.Context,
    policy: str | None,
    other: str | None,
    temperature: float | None,
    seed: int | None,
    max_tokens: int | None,
    on_page: bool,
    host: str,
    port: int,
    token: str | None,
) -> None:
    """Talk to a policy, a folder or NAME@ALIAS; the champion without one.

    Answers are those of `predict` of the registered model: the same numbers give the same answer. Where standard input
    is no terminal, every line of it is a question on its own.
    """
    if not on_page:
        _require_nothing_said(context, "host", "port", "token")
    repository = _prepared()
    page = WebPage("proximal chat --page", host, port, token, TOKEN_VARIABLE)
    if on_page:
        page.require()
    from components.config import load_params
    from components.place import Place

    place = Place(repository)
    params = load_params(place.params)
    asking = Asking(
        temperature=params.measurement.temperature if temperature is None else temperature,
        seed=params.seed if seed is None else seed,
        max_response_tokens=max_tokens or params.language_model.max_response_tokens,
    )
    first = policy or f"{params.promotion.registered_model}@champion"
    names = (first, other) if other else (first,)
    if on_page:
        from components.interface.policies import sft_and_best

        _become_page(page, names if policy or other else sft_and_best(params, place), asking)
    else:
        from components.interface.chat import chat

        chat(names, asking)


def _become_page(page: WebPage, names: tuple[str, ...], asking: Asking) -> None:
    from components.interface import policies

    for name in names:
        policies.require_policy(name)
    click.echo(f"{' and '.join(names)}: {asking.sentence()}", err=True)
    click.echo(f"Chat: {page.url} (Ctrl-C ends it)", err=True)
    page.become(Path(policies.__file__).with_name("chat_page.py"), json.dumps(asdict(asking)), *names)


def _require_nothing_said(context: click.Context, *options: str) -> None:
    """Refuse what only a page takes. A token in the environment is there for one that is served at another time."""
    for option in options:
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{option} is of a page: add --page", context)


@click.command(short_help="Serve a policy to OpenAI's clients.")
@click.argument("policy", metavar="[FOLDER_OR_MODEL]", required=False, shell_complete=completion.policies)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--vllm", metavar="PROGRAM", help="Serve by this vLLM, such as .venv-vllm/bin/vllm.")
@click.option("--vllm-arguments", metavar="TEXT", help="Further options of `vllm serve`, as a shell reads them.")
def serve(policy: str | None, port: int, vllm: str | None, vllm_arguments: str | None) -> None:
    """Serve a policy, a folder or NAME@ALIAS, on this machine until it is interrupted; the champion without one.

    It is transformers' own server, or vLLM's: OpenAI's clients take http://127.0.0.1:PORT/v1 as base_url, any key, and
    what is printed as the model's name.
    """
    if vllm_arguments is not None and vllm is None:
        raise click.UsageError("--vllm-arguments is of a vLLM: add --vllm PROGRAM")
    try:
        arguments = tuple(shlex.split(vllm_arguments or ""))
    except ValueError as fault:
        raise click.BadParameter(str(fault), param_hint="--vllm-arguments") from fault
    repository = _prepared()
    from components.config import load_params
    from components.interface.serve import serve
    from components.interface.serve_vllm import Vllm
    from components.place import Place

    params = load_params(Place(repository).params)
    served = policy or f"{params.promotion.registered_model}@champion"
    serve(served, port, params.measurement.temperature, Vllm(vllm, arguments) if vllm else None)


def _prepared() -> Path:
    repository = require_repository()
    set_environment(repository)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a policy is here, whole
    return repository


TALKING = (chat, serve)
