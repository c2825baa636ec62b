"""What may not be switched on from outside: code comes with a commit, never with a parameter of a deployment."""

from __future__ import annotations

from collections.abc import Iterator

from components.config import Params
from components.errors import ConfigError


def require_own_code(committed: Params, asked: Params) -> None:
    """See that overrides name no code or command that the params of the commit do not name themselves.

    Whoever reaches Prefect's API can start a deployment with overrides.

    Raises:
        ConfigError: they do.
    """
    new = dict(sorted(set(_code(asked)) - set(_code(committed))))
    if new:
        raise ConfigError(
            "overrides may not name code that params.yaml does not",
            where=", ".join(new),
            expected="what params.yaml of the commit says",
            found=", ".join(new.values()),
            do="if you trust that code, set the key in params.yaml itself and commit it",
        )


def _code(params: Params) -> Iterator[tuple[str, str]]:
    """The keys by which params bring code or commands to run, with what they name."""
    if params.language_model.trust_remote_code:  # of any checkpoint, so the checkpoint belongs to it
        yield "language_model.trust_remote_code", f"true, for {params.language_model.checkpoint}"
    if params.generation.engine == "vllm":
        yield "generation.command", str(params.generation.command)
        yield "generation.arguments", str(params.generation.arguments)
        yield "generation.environment", str(params.generation.environment)
