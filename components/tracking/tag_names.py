"""Which tags are for people, and how the others are kept out of their sight.

MLflow's pages of runs leave out what begins with `mlflow.`; its table of a registered model's versions does not, so
there all that is not for people is one tag. Everybody else reads and writes plain names, which change on the way to the
store and back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

OUT_OF_SIGHT = "mlflow.proximal."
_PACKED = "digests"
_FAMILIES = (
    *("in:", "out:", "checkpoint:", "made_by:", "outcome:", "decisions_on:", "asked_by:", "suites/"),
    *("candidate_", "opponent_"),  # figures of a registered version, whose description has them
)
_SINGLE = frozenset(
    {
        *("process_host", "process_pid", "process_started", "dvc_invocation"),
        *("data_md5", "params_sha256", "prefect_flow_run_id", "parent_run_id", "journal"),
        *("policy_digest", "promotion_run_id", "grounds", "gain_low", "gain_high", "gain_low_asked", "approval_until"),
    }
)


def stored(name: str) -> str:
    """The name under which a tag is kept."""
    return OUT_OF_SIGHT + name if name in _SINGLE or name.startswith(_FAMILIES) else name


def all_stored(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as they are kept."""
    return {stored(name): value for name, value in tags.items()}


def packed(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags of a registered version as they are kept."""
    aside = {name: value for name, value in tags.items() if stored(name) != name}
    return {name: value for name, value in tags.items() if name not in aside} | {_PACKED: json.dumps(aside)}


def all_plain(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags under their plain names, also those of stores that kept all of them in sight."""
    aside: dict[str, str] = json.loads(tags.get(_PACKED, "{}"))
    return {name.removeprefix(OUT_OF_SIGHT): value for name, value in tags.items() if name != _PACKED} | aside


def spellings(name: str) -> tuple[str, ...]:
    """What to search a tag by: as it is kept now, and as it was when all tags were in sight."""
    return tuple(dict.fromkeys((stored(name), name)))
