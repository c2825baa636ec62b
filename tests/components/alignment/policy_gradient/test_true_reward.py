"""PPO on the rubric's verdict in place of the reward model's score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.alignment.loop import run_cycle
from components.alignment.method import Cycle, Job, rows_of_iteration
from components.alignment.policy_gradient.checkpoint import load_model
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt
from components.alignment.ppo.learner import ROOM
from components.artifacts import read_json
from components.config import Data
from components.config.scoring import Rubric
from components.data.rows import Prompt, read_rows
from components.measuring.measure import FrozenModels
from components.place import Place
from components.scoring.scorer import Scorer, text_parts
from components.training.accelerator import start_accelerator
from components.worlds.helpdesk.rubric import grade
from components.worlds.randomwalks.graph import make_graph

WALKS = Data(
    columns={},
    rubric="components.worlds.randomwalks.rubric:score",
    rubric_options={"graph_seed": 1000},
    rubric_files="components/worlds/randomwalks",
)
HELPDESK = {
    "columns": {},
    "rubric": "components.worlds.helpdesk.rubric:score",
    "rubric_options": {},
    "rubric_files": "components/worlds/helpdesk",
}
GOLD = {"gold": Rubric(source="rubric", weight=1.0)}


def test_every_response_is_judged_with_its_own_prompt() -> None:
    """The walk c a is worth something from where c can be reached and nothing elsewhere."""
    graph = make_graph(1000)
    start = next(node for node in graph.starts if graph.shortest[node] == 3)
    middle = next(node for node in graph.successors[start] if graph.shortest[node] == 2)
    stranger = next(node for node in graph.starts if middle not in graph.successors[node] and node != middle)
    walk = f"{chr(97 + middle)} a"
    rows = [Prompt(str(node), f"v w {chr(97 + node)}") for node in (start, stranger, start)]
    scorer = Scorer(None, text_parts=text_parts(GOLD, "reward_model", torch.device("cpu"), WALKS))
    assert scorer.of_texts(rows, [walk, walk, walk.removesuffix(" a")]) == {"gold": [1.0, 0.0, 0.0]}


@pytest.mark.parametrize("has_trained_part", [True, False], ids=["beside what is trained, unheard", "alone"])
def test_an_iteration_trains_on_the_verdicts(
    world: Path, frozen: FrozenModels, tiny_params: Any, has_trained_part: bool
) -> None:
    settings = {"iterations_per_cycle": 1, "responses_per_prompt": 2, "missing_eos": "none"}
    params = tiny_params(ppo=settings)
    prompts = read_rows(Place().clean / "prompts_train.jsonl", Prompt)
    cycle = Cycle(1, Place().sft, Path("work"), prompts, [], lambda row: None)
    gold = text_parts(GOLD, "reward_model", torch.device("cpu"), Data(**HELPDESK))  # type: ignore[arg-type]
    trained = frozen.reward_model.token_model if has_trained_part else None
    judged = replace(frozen, reward_model=Scorer(trained, ("trained", 0.0), gold))
    run_cycle(ROOM.start, Job(start_accelerator(), params.method, params.alignment, params.shared, cycle, judged))
    row = read_json(Path("work/curve.json"))[0]

    asked = rows_of_iteration(prompts, 4, 0, params.seed, "ppo/prompts")
    repeated = [row for row in asked for _ in range(2)]
    texts = [row.prompt for row in repeated]
    model, codec = load_model(Place().sft / "policy", Place().reward_model / "model"), frozen.codec
    encoded = list(map(EncodedPrompt, repeated, codec.encode_prompts(texts)))
    whole = FrozenModels.load(Place().frozen, torch.device("cpu"))
    rollouts = Collector(
        start_accelerator(), model, whole.reference, whole, params.alignment, params.shared, params.method
    ).roll_out(encoded, 0)
    responses = [codec.decode([tokens[mask].tolist()])[0] for tokens, mask in zip(*rollouts.sequences[2:], strict=True)]
    expected = [grade(prompt, response).gold for prompt, response in zip(texts, responses, strict=True)]
    assert row["reward"] == row["shaped_score"] == pytest.approx(sum(expected) / 8, abs=1e-6)
    assert row["reward/gold"] == row["reward"] and "reward/gold_none" not in row
    assert row["reward"] != pytest.approx(float(rollouts.scores.mean()), abs=1e-3)
    if has_trained_part:
        assert row["reward/trained"] == pytest.approx(float(rollouts.scores.mean()), abs=1e-5)
