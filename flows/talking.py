"""The commands by which people and programs talk to a policy."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flows import completion
from flows.environment import set_environment
from flows.preconditions import require_repository


@click.command(short_help="Talk to a policy at the terminal.")
@click.argument("policy", metavar="[FOLDER_OR_MODEL]", required=False, shell_complete=completion.policies)
@click.option("--compare", "other", metavar="FOLDER_OR_MODEL", shell_complete=completion.policies,
              help="Another policy, whose answers stand beside the first one's.")  # fmt: skip
@click.option("--temperature", type=click.FloatRange(min=0), help="0 is greedy; the params' own without it.")
@click.option("--seed", type=int, help="The params' own without it.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="Of an answer; the params' own without it.")
def chat(
    policy: str | None, other: str | None, temperature: float | None, seed: int | None, max_tokens: int | None
) -> None:
    """Talk to a policy, a folder or NAME@ALIAS; the champion without one.

    Answers are those of `predict` of the registered model: the same numbers give the same answer. Where standard input
    is no terminal, every line of it is a question on its own.
    """
    repository = _prepared()
    from components.config import load_params
    from components.interface.chat import Asking, chat
    from components.place import Place

    params = load_params(Place(repository).params)
    asking = Asking(
        temperature=params.measurement.temperature if temperature is None else temperature,
        seed=params.seed if seed is None else seed,
        max_response_tokens=max_tokens or params.language_model.max_response_tokens,
    )
    first = policy or f"{params.promotion.registered_model}@champion"
    chat([first, other] if other else [first], asking)


@click.command(short_help="Serve a policy to OpenAI's clients.")
@click.argument("policy", metavar="[FOLDER_OR_MODEL]", required=False, shell_complete=completion.policies)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
def serve(policy: str | None, port: int) -> None:
    """Serve a policy, a folder or NAME@ALIAS, on this machine until it is interrupted; the champion without one.

    It is transformers' own server: OpenAI's clients take http://127.0.0.1:PORT/v1 as base_url, any key, and what is
    printed as the model's name.
    """
    repository = _prepared()
    from components.config import load_params
    from components.interface.serve import serve
    from components.place import Place

    params = load_params(Place(repository).params)
    serve(policy or f"{params.promotion.registered_model}@champion", port, params.measurement.temperature)


def _prepared() -> Path:
    repository = require_repository()
    set_environment(repository)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a policy is here, whole
    return repository


TALKING = (chat, serve)
