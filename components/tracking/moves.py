"""Who was champion when, and which policies may not become it again: tags of the registered model.

They name policies by digest, so that they outlive the versions. With the registered model they are gone: a model that
is registered anew has no history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from components.tracking import store
from components.tracking.registry import tags_of_model

PROMOTED, ROLLED_BACK, BY_HAND, FOUND = "promoted", "rolled back", "by hand", "found"
_MOVE, _BLOCK = "champion:", "blocked:"  # and the moment; and the policy's digest
_LONGEST_REASON = 1000  # of what MLflow takes, 5000 characters a tag


@dataclass(frozen=True)
class Move:
    """The alias `champion` came to a version, or to none.

    Args:
        version: None where there is no champion from then on: the next candidate is held against the SFT policy.
        policy_digest: of that version.
        why: promoted, rolled back, by hand, or found: a champion of before this was noted.
        by: who did it.
    """

    version: int | None
    policy_digest: str
    why: str
    by: str
    reason: str


@dataclass(frozen=True)
class Block:
    """A policy that may not become champion by a run."""

    version: int
    by: str
    reason: str


def moves(name: str) -> list[Move]:
    """All moves of a model's champion, the first one first; none where there is no such model."""
    tags = tags_of_model(name)
    return [Move(**json.loads(tags[key])) for key in sorted(tags) if key.startswith(_MOVE)]


def note_move(name: str, move: Move) -> None:
    """Add a move."""
    _write(name, _MOVE + datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f"), _short(asdict(move)))


def block_on(name: str, policy_digest: str) -> Block | None:
    """What keeps a policy from becoming champion; None where nothing does."""
    told = tags_of_model(name).get(_BLOCK + policy_digest)
    return Block(**json.loads(told)) if told else None


def block(name: str, policy_digest: str, why: Block) -> None:
    """Keep a policy from becoming champion by a run."""
    _write(name, _BLOCK + policy_digest, _short(asdict(why)))


def unblock(name: str, policy_digest: str) -> None:
    """Let a policy become champion again."""
    if block_on(name, policy_digest) is not None:
        with store.tracking_faults():
            store.client().delete_registered_model_tag(name, _BLOCK + policy_digest)


def _write(name: str, key: str, value: Mapping[str, object]) -> None:
    with store.tracking_faults():
        store.client().set_registered_model_tag(name, key, json.dumps(value))


def _short(told: Mapping[str, object]) -> dict[str, object]:
    return {**told, "reason": str(told["reason"])[:_LONGEST_REASON]}
