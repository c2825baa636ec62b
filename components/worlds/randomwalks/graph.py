"""The graph, and what a walk on it is worth: the randomwalks task of trlX (examples/randomwalks).

Node i is the letter chr(97 + i); `a` is the goal. A walk is its letters, the start first; it is over when it reaches
the goal, and may have ten letters at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from components.errors import ConfigError, DataError

GOAL = 0
NODES = 21
EDGE_PROBABILITY = 0.1
MAX_LETTERS = 10
_LARGEST_SEED = 2**32 - 1  # of numpy's RandomState


@dataclass(frozen=True, eq=False)
class Graph:
    """A directed graph on which every node has a successor.

    Shapes: adjacency bool (N, N); adjacency[i, j] says that an edge leads from i to j. The goal's only edge leads to
    itself.
    """

    adjacency: NDArray[np.bool_]

    @property
    def starts(self) -> range:
        """The nodes where walks begin: all but the goal."""
        return range(GOAL + 1, len(self.adjacency))

    @cached_property
    def successors(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that each node leads to."""
        return tuple(tuple(np.flatnonzero(row).tolist()) for row in self.adjacency)

    @cached_property
    def shortest(self) -> tuple[int, ...]:
        """Letters of the shortest walk from each node to the goal; MAX_LETTERS where none is shorter than that."""
        lengths = np.full(len(self.adjacency), MAX_LETTERS)
        frontier = np.arange(len(self.adjacency)) == GOAL
        seen = frontier
        for letters in range(1, MAX_LETTERS):
            lengths[frontier] = letters
            frontier = self.adjacency[:, frontier].any(axis=1) & ~seen
            seen = seen | frontier
        return tuple(lengths.tolist())

    def is_solvable(self, start: int) -> bool:
        """Whether any walk from here is worth more than 0."""
        return self.shortest[start] < MAX_LETTERS

    def optimality_of_length(self, start: int, letters: int) -> float:
        """(10 - letters) / (10 - shortest): 1 for a shortest walk to the goal, 0 for one of ten letters.

        Where even the shortest walk has ten letters, or none exists, every walk is worth 0.
        """
        if not self.is_solvable(start):
            return 0.0
        return (MAX_LETTERS - letters) / (MAX_LETTERS - self.shortest[start])


def make_graph(seed: int) -> Graph:
    """The graph of a seed: 21 nodes, each edge with probability 0.1, drawn again until every node has a successor.

    Raises:
        ConfigError: a seed that RandomState does not take.
    """
    if not 0 <= seed <= _LARGEST_SEED:
        raise ConfigError(
            "the graph's seed is out of range",
            where="seed",
            expected=f"a whole number from 0 to {_LARGEST_SEED}",
            found=str(seed),
        )
    rng = np.random.RandomState(seed)
    while True:
        adjacency = rng.rand(NODES, NODES) > 1 - EDGE_PROBABILITY
        np.fill_diagonal(adjacency, False)
        if adjacency.any(axis=1).all():
            break
    adjacency[GOAL] = np.arange(NODES) == GOAL
    adjacency.flags.writeable = False
    return Graph(adjacency)


def letter_of(node: int) -> str:
    return chr(ord("a") + node)


def optimality(walk_text: str, graph: Graph) -> float:
    """What a whole walk is worth, in [0, 1]; 0 where it is invalid.

    White space between the letters counts for nothing ("b c a" = "bca"), and so does all that follows the first `a`.
    Invalid: no goal within ten letters, an edge that the graph has not, any other character before the goal (capitals
    too), an empty text, and a walk that starts at the goal.
    """
    before, goal, _ = "".join(walk_text.split()).partition(letter_of(GOAL))
    path = [ord(letter) - ord("a") for letter in before + goal]
    if not before or not goal or len(path) > MAX_LETTERS or any(node not in graph.starts for node in path[:-1]):
        return 0.0
    if not all(graph.adjacency[here, there] for here, there in pairwise(path)):
        return 0.0
    return graph.optimality_of_length(path[0], len(path))


def reward(prompt: str, response: str, graph: Graph) -> float:
    """The optimality of the walk that starts at the prompt's last word and goes on with the response.

    Raises:
        DataError: the prompt's last word is not the letter of a start.
    """
    start = prompt.split()[-1] if prompt.split() else ""
    if start not in map(letter_of, graph.starts):
        raise DataError(
            "a prompt of the randomwalks world has no start",
            where=f"prompt {prompt!r}",
            expected=f"as its last word a letter from {letter_of(graph.starts[0])} to {letter_of(graph.starts[-1])}",
            found=repr(start),
            do="write the data with `python -m components.worlds.randomwalks generate`",
        )
    return optimality(f"{start} {response}", graph)
