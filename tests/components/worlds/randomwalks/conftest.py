"""Graphs small enough to work by hand or to enumerate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from components.worlds.randomwalks.graph import Graph


def graph_of(edges: str) -> Graph:
    """A graph from "ba bc cd": each pair of letters is an edge. The goal's own edge is added."""
    pairs = [(ord(edge[0]) - 97, ord(edge[1]) - 97) for edge in edges.split()]
    size = 1 + max(node for pair in pairs for node in pair)
    adjacency = np.zeros((size, size), dtype=bool)
    adjacency[0, 0] = True
    for here, there in pairs:
        adjacency[here, there] = True
    return Graph(adjacency)


@pytest.fixture(scope="session")
def drawn() -> Callable[[str], Graph]:
    return graph_of


@pytest.fixture(scope="session")
def four() -> Graph:
    """b leads to a and c, c to d, d to a and b."""
    return graph_of("ba bc cd da db")
