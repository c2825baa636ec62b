"""The methods by their names in params: the one table of which room each has."""

from __future__ import annotations

from components.alignment.method import Room
from components.config import Method


def room_of(method: Method) -> Room:
    """The room of a method; only the chosen one is imported."""
    match method:
        case "ppo":
            from components.alignment.policy_gradient.ppo import ROOM
        case "grpo":
            from components.alignment.policy_gradient.grpo import ROOM
        case "rloo":
            from components.alignment.policy_gradient.rloo import ROOM
        case "dpo":
            from components.alignment.dpo.learner import ROOM
        case "q_learning":
            from components.alignment.q_learning.learner import ROOM
        case "best_of_n":
            from components.alignment.best_of_n.learner import ROOM
    return ROOM
