"""How warm a short story is, as a person can read it: as a rubric for `data.rubric`, and as a reward function.

gold = warmth * freshness:
    warmth    how many different warm feelings the story names (happy, smile, hug, thank, ...), of at most four
    freshness the share of its runs of three words that it has not said before: naming one feeling again and again, or
              repeating a sentence, earns nothing
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PARTS = {"warmth": "different warm feelings, of four", "freshness": "runs of three words that are new"}
ENOUGH = 4

# Beginnings of words: happy, happily and happiness are one feeling.
FEELINGS = (
    *("happ", "glad", "smil", "laugh", "hug", "love", "fun", "excit", "proud", "thank", "friend", "kind", "joy"),
    *("cheer", "giggl", "play"),
)
_OTHER = {"funnel", "funeral", "huge", "hugely", "kindle", "kindling"}  # begin alike


def score(prompt: str, response: str) -> dict[str, float]:
    """The gold score of a story, in 0 .. 1, and its parts."""
    words = re.findall(r"[a-z]+", response.lower())
    feelings = {feeling for word in words for feeling in FEELINGS if word.startswith(feeling) and word not in _OTHER}
    warmth = min(len(feelings), ENOUGH) / ENOUGH
    runs = list(zip(words, words[1:], words[2:], strict=False))
    freshness = len(set(runs)) / len(runs) if runs else 0.0
    return {"gold": warmth * freshness, "warmth": warmth, "freshness": freshness}


def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """The same for a reward model's place: a number for every response."""
    return [score(prompt, response)["gold"] for prompt, response in zip(prompts, responses, strict=True)]
