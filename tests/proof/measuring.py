"""What a stored policy earns and how far it is from the SFT policy: by sampling, or exactly by walking its tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.config import Params
from components.core.stats import masked_sum
from components.data.rows import Prompt, read_rows
from components.measuring.measure import measure_policy
from components.models.loading import load_codec, load_policy
from components.passes.forward import in_microbatches, response_logprobs
from components.passes.sequences import build_sequences
from components.place import Place
from components.worlds.randomwalks.graph import GOAL, MAX_LETTERS, Graph, letter_of
from components.worlds.randomwalks.oracle import RewardDistribution


class Samples(NamedTuple):
    """Sampled responses. Shapes: (starts, samples) both. Units: kl in nats per sequence, k1, to the SFT policy."""

    rewards: NDArray[np.float64]
    kl: NDArray[np.float64]


class Estimate(NamedTuple):
    """The mean over uniformly drawn starts, and its standard error."""

    mean: float
    error: float


def sample(policy: Path, params: Params, per_start: int) -> Samples:
    """Answer the held-out prompts with a stored policy, every start at least `per_start` times."""
    prompts = read_rows(Place().clean / "prompts_test.jsonl", Prompt)
    starts = {row.prompt.split()[-1] for row in prompts}
    per_prompt = -(-per_start * len(starts) // len(prompts))
    records = measure_policy(policy, Place().frozen, params.shared, prompts, per_prompt, "proof")
    records.sort(key=lambda record: record.prompt.split()[-1])  # every start is asked for equally often
    table = np.array([(record.number("gold"), record.kl) for record in records]).reshape(len(starts), -1, 2)
    return Samples(table[:, :, 0], table[:, :, 1])


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Shapes: (starts, samples)."""
    starts, samples = values.shape
    return Estimate(float(values.mean()), float(np.sqrt((values.var(axis=1, ddof=1) / samples).sum()) / starts))


def best_of(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """The best of every n samples. Shapes: (starts, samples) -> (starts, samples // n)."""
    whole = values.shape[1] // n * n
    groups = values[:, :whole].reshape(len(values), -1, n)
    best: NDArray[np.float64] = groups.max(axis=2)
    return best


def reward_distribution(policy: Path, graph: Graph) -> RewardDistribution:
    """What a policy earns from each start, exactly: the probability of every walk that is worth something.

    A walk's reward is settled at the goal, so what may follow there counts for nothing.
    """
    model: Any = load_policy(policy)
    codec = load_codec(policy)
    walks = [walk for start in graph.starts for walk in _walks_to_the_goal(graph, start)]
    prompts = codec.encode_prompts([letter_of(walk[0]) for walk in walks])
    responses = codec.encode_responses([" ".join(map(letter_of, walk[1:])) for walk in walks])
    sequences = build_sequences(prompts, [response[:-1] for response in responses], codec.pad_id)
    (logprobs,) = in_microbatches(
        lambda part: (masked_sum(response_logprobs(model, part, 1.0), part.response_mask, dim=1),), sequences, 256
    )
    probabilities = np.zeros((len(graph.starts), MAX_LETTERS - 1))
    rewards = np.zeros_like(probabilities)
    for walk, probability in zip(walks, logprobs.double().exp().tolist(), strict=True):
        place = walk[0] - graph.starts[0], len(walk) - 2
        probabilities[place] += probability
        rewards[place] = graph.optimality_of_length(walk[0], len(walk))
    probabilities[:, -1] = 1.0 - probabilities.sum(axis=1)  # all others are worth nothing
    return RewardDistribution(rewards, probabilities)


def _walks_to_the_goal(graph: Graph, start: int) -> list[list[int]]:
    """All valid walks that reach the goal with less than ten letters."""
    found, waiting = [], [[start]]
    while waiting:
        walk = waiting.pop()
        for node in graph.successors[walk[-1]]:
            if node == GOAL:
                found.append([*walk, node])
            elif len(walk) + 2 < MAX_LETTERS:
                waiting.append([*walk, node])
    return found
