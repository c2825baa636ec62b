"""Dynamic sampling (DAPO, Yu et al. 2025, section 3.2): a prompt whose responses all score alike gives way to another.

Without a value model such responses have no advantage and teach nothing. What is asked instead follows from (seed,
iteration) and the scores alone, so that an interrupted cycle goes on to the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from components.alignment.policy_gradient.credit import shaped
from components.alignment.policy_gradient.rollouts import Rollouts, taken
from components.config import CriticFree
from components.core.advantages import groups_that_differ
from components.passes.sequences import Sequences
from components.scoring.scorer import PartScores

# From the numbers of prompts and the number of the round to their groups of responses, one prompt's after the other's.
RollOut = Callable[[list[int], int], Rollouts]


class Drawn(NamedTuple):
    """An iteration's rollouts, and what their curve row tells of how they came about."""

    rollouts: Rollouts
    figures: dict[str, float]


def draw_groups(roll_out: RollOut, asked: list[int], others: Iterable[int], settings: CriticFree) -> Drawn:
    """Roll out the prompts asked; in each round ask others in place of those whose responses all score alike.

    Scores count as they are after the missing-end rule and the length penalty. What the last round leaves stays in:
    a batch has always the same size, and those responses no advantage but by their KL.

    Args:
        others: the numbers of prompts to ask instead, in this order, again from the first where they are too few.
    Returns:
        Each new group in the place of one that it replaces. Figures: sampling_rounds and, of prompts,
        prompts_replaced and prompts_left_alike; reward_first_drawn, the mean before anything was replaced, which alone
        tells of all prompts; sampled_tokens of all rounds.
    """
    size = settings.responses_per_prompt
    found = roll_out(asked, 0)
    first, tokens = float(found.scores.mean()), int(found.sequences.response_mask.sum())
    teaches = _teaches(found, settings)
    alike, rounds, supply = int((~teaches).sum()), 0, itertools.cycle(others)
    while rounds < settings.dynamic_sampling_rounds and not bool(teaches.all()):
        rounds += 1
        places = (~teaches).nonzero().flatten()
        more = roll_out(list(itertools.islice(supply, len(places))), rounds)
        tokens += int(more.sequences.response_mask.sum())
        better = _teaches(more, settings).nonzero().flatten()
        places = places[: len(better)]
        rows = torch.arange(len(found.sequences), device=places.device).view(-1, size)
        rows[places] = len(found.sequences) + better[:, None] * size + torch.arange(size, device=places.device)
        found = taken(_joined(found, more), rows.flatten())
        teaches[places] = True
    left = int((~teaches).sum())
    figures = {"sampling_rounds": rounds, "prompts_replaced": alike - left, "prompts_left_alike": left}
    return Drawn(found, {"sampled_tokens": tokens, **figures, "reward_first_drawn": first})


def _teaches(rollouts: Rollouts, settings: CriticFree) -> Tensor:
    """Of which prompts the responses have scores that differ, and of which the losses count any. Shapes: (prompts,)."""
    differ = groups_that_differ(shaped(rollouts, settings), settings.responses_per_prompt)
    if not settings.mask_truncated:
        return differ
    return differ & rollouts.ended.reshape(-1, settings.responses_per_prompt).any(dim=1)


def _joined(first: Rollouts, second: Rollouts) -> Rollouts:
    """All rows of both, the first's before the second's."""

    def of(one: Any, other: Any) -> Any:
        if isinstance(one, Sequences):
            sides = ("left", "left", "right", "right")  # of prompts and responses
            return Sequences(*(_stacked(a, b, side) for a, b, side in zip(one, other, sides, strict=True)))
        if isinstance(one, Tensor):
            return torch.cat([one, other]) if one.dim() == 1 else _stacked(one, other, "right")
        return {name: PartScores(*map(torch.cat, zip(one[name], other[name], strict=True))) for name in one}

    return Rollouts(*(of(one, other) for one, other in zip(first, second, strict=True)))


def _stacked(one: Tensor, other: Tensor, padded: str) -> Tensor:
    """Rows of unlike width, the narrower ones padded with what no mask selects."""
    width = max(one.shape[1], other.shape[1])
    missing = [width - column.shape[1] for column in (one, other)]
    both = zip((one, other), missing, strict=True)
    return torch.cat([pad(column, (short, 0) if padded == "left" else (0, short)) for column, short in both])
