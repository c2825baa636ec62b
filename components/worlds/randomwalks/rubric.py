"""The rubric of the randomwalks world: gold is the walk's optimality."""

from __future__ import annotations

from functools import cache

from components.worlds.randomwalks.graph import make_graph, reward

_graph = cache(make_graph)


def score(prompt: str, response: str, graph_seed: int) -> dict[str, float]:
    """What the walk of a response is worth on the graph of the data's seed; see `graph.reward`."""
    return {"gold": reward(prompt, response, _graph(graph_seed))}
