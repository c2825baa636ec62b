"""Rewards by sampling and by walking the tree agree, and both agree with figures worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from components.config import load_params
from components.models.loading import load_codec, load_policy
from components.place import Place
from components.worlds.randomwalks.graph import Graph, make_graph
from components.worlds.randomwalks.oracle import behaviour
from tests.proof import measuring
from tests.proof.measuring import best_of, estimate, reward_distribution, sample


def test_an_estimate_worked_by_hand() -> None:
    """Variances of the starts 1/2 and 2, two samples each: sqrt((1/4 + 1) / 4)."""
    found = estimate(np.array([[0.0, 1.0], [1.0, 3.0]]))
    assert found == pytest.approx((1.25, (1.25**0.5) / 2), abs=1e-15)


def test_the_best_of_whole_groups() -> None:
    values = np.array([[1.0, 2.0, 5.0, 4.0, 9.0], [3.0, 0.0, 0.0, 0.0, 9.0]])
    assert best_of(values, 2).tolist() == [[2.0, 5.0], [3.0, 0.0]]
    assert best_of(values, 1).tolist() == values.tolist()


def test_the_walks_to_the_goal() -> None:
    """b leads to a and c, c to d, d to a and b. bcdbcdba has eight letters; bcdbcdbcda would have ten, too many."""
    adjacency = np.array([[1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]], dtype=bool)
    walks = measuring._walks_to_the_goal(Graph(adjacency), 1)
    letters = {"".join(chr(97 + node) for node in walk) for walk in walks}
    assert letters == {"ba", "bcda", "bcdba", "bcdbcda", "bcdbcdba"}


def test_sampling_and_the_tree_agree(prepared: Any) -> None:
    """On the SFT policy, which does not take all walks alike."""
    exact = behaviour(prepared.exact.of_sft).reward
    samples = sample(Place().sft / "policy", load_params(Place().params), 100)
    assert samples.rewards.shape == samples.kl.shape == (20, 100)
    assert samples.kl == pytest.approx(np.zeros((20, 100)), abs=1e-5)
    found = estimate(samples.rewards)
    assert found.error < 0.01
    assert abs(found.mean - exact) < 4 * found.error  # reason: four standard errors
    assert abs(exact - behaviour(prepared.exact.of_behaviour).reward) < 0.1  # reason: this SFT is a short one


@torch.no_grad()
def test_a_start_of_the_tree_equals_hugging_face(prepared: Any) -> None:
    """The probability of the shortest walks from one start, token by token."""
    folder, graph = Place().sft / "policy", make_graph(1000)
    policy, codec = load_policy(folder), load_codec(folder)
    start = next(node for node in graph.starts if graph.shortest[node] == 3)
    total = 0.0
    for middle in graph.successors[start]:
        if 0 not in graph.successors[middle]:
            continue
        tokens, probability = codec.encode_prompts([chr(97 + start)])[0], 1.0
        for letter in (chr(97 + middle), "a"):
            token = codec.encode_responses([letter])[0][0]
            probability *= float(policy(torch.tensor([tokens])).logits[0, -1].softmax(dim=-1)[token])
            tokens = [*tokens, token]
        total += probability
    found = reward_distribution(folder, graph)
    assert found.probabilities[start - 1, 1] == pytest.approx(total, abs=1e-6)
    assert found.rewards[start - 1, 1] == 1.0
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-12)
