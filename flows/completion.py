"""What the shell offers at the Tab key, quickly: `eval "$(_PROXIMAL_COMPLETE=bash_source proximal)"` switches it on."""

from __future__ import annotations

from pathlib import Path

from click import Context, Parameter
from click.shell_completion import CompletionItem

from components.errors import ProximalError
from flows.preconditions import find_root


def keys(_context: Context, _parameter: Parameter, incomplete: str) -> list[str]:
    """Dotted keys of params.yaml."""
    from components.config.keys import dotted_keys

    return [key for key in dotted_keys() if key.startswith(incomplete)]


def methods(_context: Context, _parameter: Parameter, incomplete: str) -> list[str]:
    """Methods of alignment."""
    from components.config import METHODS

    return [method for method in METHODS if method.startswith(incomplete)]


def models(_context: Context, _parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """The two aliases of the registered model that params name. The registry is not asked: that takes seconds."""
    from components.config import load_params
    from components.place import Place

    try:
        name = load_params(Place(find_root() or Path()).params).promotion.registered_model
    except ProximalError:  # a Tab is no place to say so
        return []
    names = [f"{name}@{alias}" for alias in ("champion", "candidate")]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def policies(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Registered models, or folders."""
    return models(context, parameter, incomplete) or [CompletionItem(incomplete, type="dir")]
