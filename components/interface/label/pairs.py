"""What there is to label: pairs of answers with what the scorers say of them, those on which these disagree first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.artifacts import read_json, write_json
from components.data.rows import Message
from components.digests import digest_of_values
from components.errors import ArtifactError
from components.seeding import derive_seed


@dataclass(frozen=True)
class Policy:
    """Who answers: a policy as people name it, and the digest of its files."""

    name: str
    digest: str


@dataclass(frozen=True)
class Answer:
    """One sampled answer; reward and judge in standard deviations of their scores on SFT samples."""

    policy: Policy
    text: str
    reward: float
    judge: float


@dataclass(frozen=True)
class Pair:
    """A prompt and two answers that differ; `prompt` is the transcript where `messages` are there."""

    id: str
    prompt: str
    messages: list[Message] | None
    answers: tuple[Answer, Answer]

    @property
    def accord(self) -> float:
        """The product of the gaps that reward model and judge see: below 0 where they disagree on the better answer."""
        first, second = self.answers
        return (first.reward - second.reward) * (first.judge - second.judge)

    def shown_to(self, annotator: str) -> tuple[Answer, Answer]:
        """The answers as A and B: in random order for each annotator, and the same one each time."""
        first, second = self.answers
        return (second, first) if derive_seed(0, "label", self.id, annotator) % 2 else (first, second)


@dataclass(frozen=True)
class Queue:
    """All pairs, in the order in which they are asked for, and what they were made of.

    Args:
        policies: one, whose answers are compared with others of its own, or two.
        prompts: how many were asked.
    """

    policies: tuple[Policy, ...]
    prompts: int
    pairs: tuple[Pair, ...]

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Queue:
        """What `write` wrote.

        Raises:
            ArtifactError: it is absent, or no queue.
        """
        content = read_json(path)
        try:
            policies = tuple(Policy(**each) for each in content["policies"])
            return cls(policies, content["prompts"], tuple(map(_pair, content["pairs"])))
        except (KeyError, TypeError, ValueError) as fault:
            raise ArtifactError(
                "this is no queue of pairs to label",
                where=str(path),
                expected="what `proximal label` wrote",
                found=f"{type(fault).__name__}: {fault}",
                do="name another file with --queue; a new one is made",
            ) from fault


def pair_of(prompt: str, messages: list[Message] | None, first: Answer, second: Answer) -> Pair:
    """A pair, named by all that it is made of: sampled anew, the same one has the same name."""
    told = [prompt, messages, *([each.policy.digest, each.text] for each in (first, second))]
    return Pair(digest_of_values(told)[:16], prompt, messages, (first, second))


def in_order(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    """Those first on which the scorers disagree most, then the close ones, and last those on which they agree most.

    Two answers of the same text are left out: nobody can prefer one.
    """
    return tuple(sorted(filter(_differs, pairs), key=lambda pair: (pair.accord, pair.id)))


def describe(policies: Sequence[Policy]) -> str:
    """Policies for people."""
    return " and ".join(f"{each.name} ({each.digest[:8]})" for each in policies)


def _differs(pair: Pair) -> bool:
    first, second = (answer.text.strip() for answer in pair.answers)
    return first != second


def _pair(content: dict[str, Any]) -> Pair:
    first, second = (Answer(**{**each, "policy": Policy(**each["policy"])}) for each in content["answers"])
    return Pair(**{**content, "answers": (first, second)})
