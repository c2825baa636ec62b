"""What a broken policy shows and no mean of a score tells: it is warned about wherever a policy has been sampled.

The bounds are wide on purpose. A policy beyond one of them is hardly ever what somebody wanted, so that they are no
params; a warning stops nothing.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

logger = logging.getLogger("proximal")
# Most answers of a policy that learned to end do end; one that did not fills max_response_tokens nearly always.
LEAST_ENDED = 0.5
# Of ln(vocabulary), the entropy of drawing any token alike. Fresh weights have 0.9 of it and more, trained policies of
# all sizes at temperature 1 well below half.
MOST_ENTROPY = 0.75
# Nats per token: below it, a hundred tokens hold about as much choice as two answers to a yes-or-no question.
LEAST_ENTROPY = 0.01
# Share of responses that go round in circles. Natural text hardly ever does, see `goes_round`.
MOST_GOING_ROUND = 0.1
_LEAST_WORDS = 8  # of fewer words no repetition can be told from style


class Signs(NamedTuple):
    """What the responses of one policy show, over all of them.

    Args:
        ended: share of responses that end by themselves.
        entropy: mean nats per token.
        parts: the means of the rubric's parts by label; empty without a rubric.
    """

    responses: Sequence[str]
    ended: float
    entropy: float
    parts: Mapping[str, float]


def warnings(whose: str, signs: Signs, vocabulary: int) -> list[str]:
    """What is wrong with a policy, a sentence each; empty for one that is in order.

    Args:
        whose: the policy in words, such as "the SFT policy".
        vocabulary: its number of tokens.
    """
    found = []
    most = math.log(vocabulary)
    if signs.entropy > MOST_ENTROPY * most:
        found.append(
            f"{whose} looks untrained: its entropy is {signs.entropy:.2f} nats per token, and drawing any token alike "
            f"has {most:.2f}"
        )
    if signs.entropy < LEAST_ENTROPY:
        found.append(f"{whose} has collapsed: its entropy is {signs.entropy:.4f} nats per token, it has no choice left")
    if signs.ended < LEAST_ENDED:
        found.append(f"responses of {whose} do not end: {signs.ended:.1%} do by themselves, the others are cut off")
    round_ = sum(map(goes_round, signs.responses)) / len(signs.responses)
    if round_ > MOST_GOING_ROUND:
        found.append(f"{whose} repeats itself: {round_:.1%} of its responses go round in circles")
    found += [f"{part} of {whose} is 0 in every response" for part, mean in signs.parts.items() if mean == 0.0]
    return found


def warn(whose: str, signs: Signs, vocabulary: int) -> None:
    """Say what is wrong with a policy where it was sampled; see `warnings`."""
    for warning in warnings(whose, signs, vocabulary):
        logger.warning("%s", warning)


def goes_round(response: str) -> bool:
    """Whether more than half of a response's pairs of words are repetitions of others in it."""
    words = response.split()
    if len(words) < _LEAST_WORDS:
        return False
    pairs = Counter(zip(words, words[1:], strict=False))
    return 2 * len(pairs) < len(words) - 1
