"""A stored policy that answers people: everything it needs lies in its folder."""

from __future__ import annotations

from pathlib import Path

from components.language_model.generation import generate
from components.language_model.loading import load_codec, load_policy
from components.language_model.sampling import uniforms
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

    def answer(self, prompts: list[str], *, temperature: float, max_response_tokens: int, seed: int) -> list[str]:
        """One sampled response to every prompt; the same arguments give the same responses."""
        if not prompts:
            return []
        sequences = generate(
            self._policy,
            self._codec,
            self._codec.encode_prompts(prompts),
            uniforms(len(prompts), max_response_tokens, generator(seed, "answers")),
            temperature=temperature,
            batch_size=_BATCH_SIZE,
        )
        return self._codec.decode(sequences.responses())
