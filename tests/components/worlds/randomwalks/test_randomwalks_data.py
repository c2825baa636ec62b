"""What the generator writes: walks of the behaviour policy, honest labels, and data that the pipeline accepts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from components.artifacts import write_jsonl
from components.config import DataValidation
from components.data_validation.gathering import read_raw_files
from components.data_validation.validate import validate
from components.errors import ConfigError
from components.worlds.randomwalks.generator import Row, generate, make_comparisons, make_demonstrations
from components.worlds.randomwalks.graph import Graph, make_graph, optimality, reward


@pytest.fixture(scope="module")
def files() -> dict[str, list[Row]]:
    return generate(1000)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return make_graph(1000)


def test_every_split_asks_for_every_start_equally_often(files: dict[str, list[Row]]) -> None:
    rows = files["prompts.jsonl"]
    asked = Counter((row["split"], row["prompt"][-1]) for row in rows)
    for split, times in {"train": 15, "validation": 5, "test": 5}.items():
        assert {letter: asked[split, letter] for letter in "bcdefghijklmnopqrstu"} == dict.fromkeys(
            "bcdefghijklmnopqrstu", times
        )
    assert sum(asked.values()) == len(rows) == len({row["prompt"] for row in rows}) == 500


def test_training_prompts_have_every_mark_at_either_place_equally_often(files: dict[str, list[Row]]) -> None:
    train = [row["prompt"].split() for row in files["prompts.jsonl"] if row["split"] == "train"]
    for place in (0, 1):
        assert Counter(words[place] for words in train) == dict.fromkeys("vwxyz", 60)


def test_demonstrations_are_whole_walks_from_training_prompts(files: dict[str, list[Row]], graph: Graph) -> None:
    train = {row["prompt"] for row in files["prompts.jsonl"] if row["split"] == "train"}
    assert len(files["demonstrations.jsonl"]) == 1000
    for row in files["demonstrations.jsonl"]:
        assert row["prompt"] in train
        walk = [row["prompt"][-1], *row["response"].split(" ")]
        nodes = [ord(letter) - ord("a") for letter in walk]
        assert all(graph.adjacency[here, there] for here, there in zip(nodes, nodes[1:], strict=False))
        assert (walk[-1] == "a" and walk.count("a") == 1) or (len(walk) == 10 and "a" not in walk)
        assert 2 <= len(walk) <= 10


def test_starts_and_successors_are_drawn_uniformly(four: Graph) -> None:
    """Four standard deviations of a binomial count around the hand-worked shares."""
    rows = make_demonstrations(four, 3000, Random(2))
    starts = Counter(row["prompt"][-1] for row in rows)
    assert all(  # reason: four standard deviations of a draw
        abs(starts[letter] - 1000) < 4 * math.sqrt(3000 * 2 / 9) for letter in "bcd"
    )
    from_b = [row["response"] for row in rows if row["prompt"][-1] == "b"]
    for response, share in {"a": 1 / 2, "c d a": 1 / 4, "c d b a": 1 / 8}.items():
        deviation = math.sqrt(share * (1 - share) / len(from_b))
        frequency = from_b.count(response) / len(from_b)
        assert abs(frequency - share) < 4 * deviation  # reason: four standard deviations of a draw


def test_comparisons_have_two_different_walks_of_one_start(files: dict[str, list[Row]], graph: Graph) -> None:
    train = {row["prompt"] for row in files["prompts.jsonl"] if row["split"] == "train"}
    contents = defaultdict(set)
    for row in files["comparisons.jsonl"]:
        assert row["prompt"] in train
        assert row["chosen"] != row["rejected"]
        contents[row["pair"]].add((row["prompt"], *sorted((row["chosen"], row["rejected"]))))
    assert all(len(content) == 1 for content in contents.values())
    assert len(set.union(*contents.values())) == len(contents)  # and one number only


@pytest.mark.parametrize("scale", [0.0, 2.0, 8.0])
def test_labels_follow_bradley_terry(scale: float, graph: Graph) -> None:
    """The better walk wins as often as the sigmoid of the gap says, within four standard deviations."""
    compared = expected = wins = variance = 0.0
    for row in make_comparisons(graph, 3000, scale, Random(4)):
        gap = reward(row["prompt"], row["chosen"], graph) - reward(row["prompt"], row["rejected"], graph)
        if gap:
            share = 1 / (1 + math.exp(-scale * abs(gap)))
            compared, wins = compared + 1, wins + (gap > 0)
            expected, variance = expected + share, variance + share * (1 - share)
    assert compared > 1500
    assert abs(wins - expected) < 4 * math.sqrt(variance)  # reason: four standard deviations


def test_equal_walks_win_by_chance(graph: Graph) -> None:
    """Of two walks that are worth nothing, the one that comes first in the alphabet wins half of the time."""
    rows = [
        row
        for row in make_comparisons(graph, 3000, 50.0, Random(4))
        if not optimality(row["prompt"][-1] + row["chosen"], graph)
        and not optimality(row["prompt"][-1] + row["rejected"], graph)
    ]
    first = sum(row["chosen"] < row["rejected"] for row in rows)
    assert len(rows) > 300
    assert abs(first - len(rows) / 2) < 4 * math.sqrt(len(rows) / 4)  # reason: four standard deviations


def test_a_start_with_one_walk_has_demonstrations_but_no_comparisons(drawn: Callable[[str], Graph]) -> None:
    graph = drawn("ba cb da dc")  # b and c have one way each
    assert {row["prompt"][-1] for row in make_comparisons(graph, 20, 1.0, Random(1))} == {"d"}
    assert {row["prompt"][-1] for row in make_demonstrations(graph, 60, Random(1))} == set("bcd")


def test_the_pipeline_accepts_every_row(files: dict[str, list[Row]], shipped: dict[str, Any], tmp_path: Path) -> None:
    for name, rows in files.items():
        write_jsonl(tmp_path / name, rows)
    limits = DataValidation(**(shipped["data_validation"] | {"max_reject_fraction": 0.0}))
    validated = validate(read_raw_files(tmp_path, {}), limits, seed=1)
    assert validated.rejected == []
    assert [check.name for check in validated.checks if check.status == "failure"] == []
    sizes = {part: len(rows) for part, rows in validated.parts.items()}
    assert (sizes["prompts_train"], sizes["prompts_validation"], sizes["prompts_test"]) == (300, 100, 100)
    assert sizes["demonstrations"] == 1000
    assert sum(size for part, size in sizes.items() if part.startswith("comparisons")) == 4000


def test_same_seed_same_rows_and_one_file_leaves_the_others_alone(files: dict[str, list[Row]]) -> None:
    assert generate(1000) == files
    shorter = generate(1000, walks=10, comparisons=20)
    assert shorter["demonstrations.jsonl"] == files["demonstrations.jsonl"][:10]
    assert shorter["comparisons.jsonl"] == files["comparisons.jsonl"][:20]
    assert generate(1002)["demonstrations.jsonl"] != files["demonstrations.jsonl"]


def test_a_graph_with_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to learn"):
        generate(1001)  # no edge leads to its goal


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_label_scale_out_of_range_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="label scale"):
        generate(1000, label_scale=scale)
