"""From rollouts to pairs: to learn from, and as rows that say where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from components.alignment.policy_gradient.credit import shaped
from components.alignment.policy_gradient.rollouts import EncodedPrompt, Rollouts
from components.config import OnlineDpo
from components.core.pairs import best_and_worst
from components.data.rows import BY_REWARD_MODEL, Comparison
from components.models.text import Codec

SOURCE = f"{BY_REWARD_MODEL}reward_model"


class Maker(NamedTuple):
    """What the pairs of an iteration come from, counted from 1; policy and reward model by the digests of DVC."""

    policy: str
    reward_model: str
    cycle: int
    iteration: int


class Pairs(NamedTuple):
    """N pairs among B rollouts.

    Shapes: chosen and rejected (N,), their numbers among the rollouts; scores (B,), what they were told apart by.

    Args:
        ties: how many prompts gave no pair: all responses score alike, or best and worst are the same text.
    """

    chosen: Tensor
    rejected: Tensor
    scores: Tensor
    texts: Sequence[str]
    ties: int

    @property
    def both(self) -> Tensor:
        """Chosen, then rejected."""
        return torch.cat([self.chosen, self.rejected])

    def mean_gap(self) -> float:
        """By how much the chosen ones score higher."""
        return float((self.scores[self.chosen] - self.scores[self.rejected]).mean())


def pairs_of(rollouts: Rollouts, settings: OnlineDpo, codec: Codec) -> Pairs:
    """The best and the worst response of each prompt, but for ties.

    The same text twice has one score but for the last bits, which would make a preference of rounding.
    """
    scores = shaped(rollouts, settings)
    best, worst, is_tie = best_and_worst(scores, settings.responses_per_prompt)
    texts = codec.decode(rollouts.sequences.responses())
    alike = [texts[first] == texts[second] for first, second in zip(best.tolist(), worst.tolist(), strict=True)]
    kept = ~(is_tie | torch.tensor(alike, device=is_tie.device))
    return Pairs(best[kept], worst[kept], scores, texts, int((~kept).sum()))


def rows_of(pairs: Pairs, prompts: Sequence[EncodedPrompt], maker: Maker) -> list[Comparison]:
    """The pairs as comparisons, which can be brought as data, with what made them.

    Args:
        prompts: one for each of the rollouts.
    """
    rows = []
    for number, (chosen, rejected) in enumerate(zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True)):
        prompt = prompts[chosen].row
        provenance = {
            "prompt_id": prompt.id,
            "chosen_score": float(pairs.scores[chosen]),
            "rejected_score": float(pairs.scores[rejected]),
            **maker._asdict(),
        }
        row = Comparison(
            id=f"online/{maker.policy[:12]}/{maker.iteration}/{number}",
            prompt=prompt.prompt,
            chosen=pairs.texts[chosen],
            rejected=pairs.texts[rejected],
            messages=prompt.messages,
            source=SOURCE,
            annotator=f"reward_model/{maker.reward_model[:12]}",
            extra={**prompt.extra, **provenance},
        )
        rows.append(row)
    return rows
