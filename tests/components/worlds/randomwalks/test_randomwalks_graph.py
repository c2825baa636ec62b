"""The graph of a seed, and what walks are worth, against hand-worked values and a second writing of the recipe."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from components.errors import ConfigError, DataError
from components.worlds.randomwalks.graph import Graph, make_graph, optimality, reward


@pytest.mark.parametrize("seed", [0, 1000, 1002, 2**32 - 1])
def test_the_graph_is_the_one_of_the_recipe(seed: int) -> None:
    rng = np.random.RandomState(seed)
    while True:
        drawn = rng.random_sample(21 * 21)  # row by row
        edges = {(k // 21, k % 21) for k in range(21 * 21) if drawn[k] > 0.9 and k // 21 != k % 21}
        if {here for here, _ in edges} == set(range(21)):
            break
    expected = {(here, there) for here, there in edges if here != 0} | {(0, 0)}
    adjacency = make_graph(seed).adjacency
    assert adjacency.shape == (21, 21)
    assert {(int(i), int(j)) for i, j in np.argwhere(adjacency)} == expected


@pytest.mark.parametrize("seed", [1000, 1002, 7])
def test_facts_of_every_graph(seed: int) -> None:
    graph = make_graph(seed)
    assert all(len(graph.successors[node]) >= 1 for node in graph.starts)
    assert not graph.adjacency.diagonal()[1:].any()
    assert graph.successors[0] == (0,)
    assert list(graph.starts) == list(range(1, 21))
    assert (graph.adjacency == make_graph(seed).adjacency).all()
    assert (graph.adjacency != make_graph(seed + 1).adjacency).any()


def test_shortest_walks_are_counted_in_letters(four: Graph, drawn: Callable[[str], Graph]) -> None:
    assert four.shortest == (1, 2, 3, 2)  # a, ba, cda, da
    chain = drawn("ba cb dc ed fe gf hg ih ji kj")
    assert chain.shortest == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10)  # from k it would be eleven
    assert [chain.is_solvable(start) for start in (8, 9, 10)] == [True, False, False]


@pytest.mark.parametrize(
    ("walk", "expected"),
    [
        ("ba", 1.0),
        ("bcda", 0.75),  # (10 - 4) / (10 - 2)
        ("cda", 1.0),
        ("cdba", 6 / 7),  # (10 - 4) / (10 - 3)
        ("dbcdbcdba", 0.125),  # nine letters: (10 - 9) / (10 - 2)
        ("bcdbcdbcda", 0.0),  # ten letters
        ("bcdbcdbcdba", 0.0),  # eleven
        ("b c d a", 0.75),
        ("  b\tc d\n a ", 0.75),
        ("baqa?", 1.0),  # what follows the goal does not count
        ("bcd", 0.0),  # not there yet
        ("bda", 0.0),  # no such edge
        ("bcb a", 0.0),
        ("ea", 0.0),  # no such node in this graph
        ("b{a", 0.0),
        ("b,a", 0.0),
        ("BA", 0.0),
        ("bé a", 0.0),
        ("a", 0.0),  # begins at the goal
        ("aba", 0.0),
        ("", 0.0),
        ("  ", 0.0),
    ],
)
def test_optimality_worked_by_hand(walk: str, expected: float, four: Graph) -> None:
    assert optimality(walk, four) == pytest.approx(expected, abs=1e-15)


def test_where_the_goal_is_out_of_reach_everything_is_worth_nothing(drawn: Callable[[str], Graph]) -> None:
    graph = drawn("ba cd dc")
    assert optimality("ba", graph) == 1.0
    assert optimality("cdcdc", graph) == 0.0


def test_the_reward_takes_the_start_from_the_prompt(four: Graph) -> None:
    assert reward("b", "c d a", four) == 0.75
    assert reward("v x b", " c d a", four) == 0.75
    assert reward("v x b", "b a", four) == 0.0  # the start is said already; b has no edge to itself
    assert reward("b", "", four) == 0.0


@pytest.mark.parametrize("prompt", ["v x", "v x a", "bc", "", " "])
def test_a_prompt_without_a_start_is_refused(prompt: str, four: Graph) -> None:
    with pytest.raises(DataError, match="has no start"):
        reward(prompt, "a", four)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_does_not_take_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        make_graph(seed)
