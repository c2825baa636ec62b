"""Whom a drill of kills kills, and when: drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

# A phase: the stage at work, and what is waited for: its process, another checkpoint, one that is put in place of the
# last, or outputs that DVC has not yet taken. And how long after it, at most, the kill comes.
PHASES = {
    "sft": ("sft", "checkpoint", 0.3),
    "the swap of sft's checkpoint": ("sft", "swap", 0.0),
    "the commit of sft": ("sft", "commit", 0.0),
    "reward model": ("reward_model", "begun", 6.0),
    "judge": ("judge", "checkpoint", 0.3),
    "rollouts": ("alignment", "checkpoint", 0.1),
    "updates": ("alignment", "checkpoint", 0.3),
    "the swap of a cycle's checkpoint": ("alignment", "swap", 0.0),
    "the commit of a cycle": ("alignment", "commit", 0.0),
    "evaluation": ("evaluation", "begun", 6.0),
    "promotion": ("promotion", "begun", 6.0),
}
ENDS_THE_RUN = ("flow", "server", "supervisor of the server")
ENDS_THE_STAGE = ("supervisor", "DVC", "launcher")
ENDS_NOTHING = ("MLflow",)  # its server; the work goes on, and it is started again at once


@dataclass(frozen=True)
class Aim:
    """Whom to kill, in which phase, and how long after its sign."""

    role: str
    phase: str
    delay_s: float


def draw(seed: int, kills: int, *, ranks: int = 0, mlflow: bool = False) -> list[Aim]:
    """So many kills in the order of the pipeline: roles and phases come by in turn, each time in another order.

    Args:
        ranks: so many of them are killed, too.
        mlflow: so is MLflow's server.
    """
    drawn = random.Random(seed)
    everybody = [*ENDS_THE_RUN, *ENDS_THE_STAGE, *(f"rank {rank}" for rank in range(ranks))]
    everybody += ENDS_NOTHING if mlflow else ()
    waiting, phases, aims = list[str](), list[str](), []
    for _ in range(kills):
        phases = phases or drawn.sample(list(PHASES), len(PHASES))
        phase = phases.pop()
        if not any(_is_there(role, phase) for role in waiting):
            waiting += drawn.sample(everybody, len(everybody))
        role = next(role for role in waiting if _is_there(role, phase))
        waiting.remove(role)
        aims.append(Aim(role, phase, drawn.uniform(0.0, PHASES[phase][2])))
    return sorted(aims, key=lambda aim: list(PHASES).index(aim.phase))


def _is_there(role: str, phase: str) -> bool:
    stage, sign, _ = PHASES[phase]
    if role == "DVC":
        return stage != "promotion"  # which is no stage of DVC's
    if sign == "commit":
        return role != "launcher" and not role.startswith("rank")  # the stage itself has ended
    return not role.startswith("rank") or stage not in ("evaluation", "promotion")  # one process each
