"""How people's questions are answered, by a terminal or on a page."""

from __future__ import annotations

from dataclasses import dataclass

TOKEN_VARIABLE = "PROXIMAL_CHAT_TOKEN"  # what people must know who open the page; no list of processes shows it


@dataclass(frozen=True)
class Asking:
    """How every answer is sampled.

    Args:
        temperature: 0 takes the likeliest token every time.
        seed: the same question gets the same answer with the same seed.
    """

    temperature: float
    seed: int
    max_response_tokens: int

    def sentence(self) -> str:
        """The same for people."""
        return f"temperature {self.temperature:g}, seed {self.seed}, at most {self.max_response_tokens} tokens"
