"""A stored policy that answers people: everything it needs lies in its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path

from components.data.rows import Asked
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.errors import DataError
from components.models.loading import load_codec, load_policy, positions_of
from components.seeding import generator

_BATCH_SIZE = 64


class Answerer:
    """Loads a policy folder once and answers prompts with it."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            ArtifactError: the folder is absent, half-written or corrupt.
        """
        self._policy = load_policy(folder)
        self._codec = load_codec(folder)

    def answer(self, prompts: Sequence[Asked], *, temperature: float, max_response_tokens: int, seed: int) -> list[str]:
        """One sampled response to every prompt; the same arguments give the same responses.

        Args:
            prompts: texts, or conversations, lists of messages of which the last is the user's.
            temperature: 0 takes the likeliest token every time.
        Raises:
            DataError: a number is not one to answer with, or prompt and response are longer than the policy can read.
        """
        _require("temperature", temperature, "a finite number, 0 (greedy) or more", low=0, whole=False)
        _require("max_response_tokens", max_response_tokens, "a whole number, 1 or more", low=1, whole=True)
        _require("seed", seed, "a whole number", low=None, whole=True)
        if not prompts:
            return []
        encoded = self._codec.encode_prompts(prompts)
        longest, limit = max(map(len, encoded)), positions_of(self._policy)
        if limit is not None and longest + max_response_tokens > limit:
            raise DataError(
                "prompt and response are longer together than the policy can read",
                where="max_response_tokens",
                expected=f"at most {limit - longest}: the policy has {limit} positions, and the longest prompt takes "
                f"{longest}",
                found=str(max_response_tokens),
                do="ask for shorter responses",
            )
        sequences = generate(
            self._policy,
            self._codec,
            encoded,
            draw_uniforms(len(prompts), int(max_response_tokens), generator(int(seed), "answers")),
            temperature=temperature,
            batch_size=_BATCH_SIZE,
        )
        return self._codec.decode(sequences.responses())


def _require(name: str, value: object, expected: str, *, low: int | None, whole: bool) -> None:
    """Refuse a number that is not as `expected` says; True and False are none. Raises: DataError."""
    kind = Integral if whole else Real
    if isinstance(value, kind) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and (low is None or number >= low):
            return
    raise DataError(f"{name} cannot be answered with", where=name, expected=expected, found=repr(value))
