"""PPO on the rubric's verdict in place of the reward model's score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.alignment.loop import run_cycle
from components.alignment.method import Cycle, Job, rows_of_iteration
from components.alignment.policy_gradient.checkpoint import load_model
from components.alignment.policy_gradient.rollouts import Collector, EncodedPrompt, true_scores
from components.alignment.ppo.learner import ROOM
from components.artifacts import read_json
from components.config import Data
from components.data.rows import Prompt, read_rows
from components.measuring.measure import FrozenModels
from components.passes.sequences import build_sequences
from components.place import Place
from components.training.accelerator import start_accelerator
from components.worlds.helpdesk.rubric import grade
from components.worlds.randomwalks.graph import make_graph

WALKS = Data(
    columns={},
    rubric="components.worlds.randomwalks.rubric:score",
    rubric_options={"graph_seed": 1000},
    rubric_files="components/worlds/randomwalks",
)


def test_every_response_is_judged_with_its_own_prompt(frozen: FrozenModels, tiny_params: Any) -> None:
    """The walk c a is worth something from where c can be reached and nothing elsewhere; padding changes nothing."""
    graph = make_graph(1000)
    start = next(node for node in graph.starts if graph.shortest[node] == 3)
    middle = next(node for node in graph.successors[start] if graph.shortest[node] == 2)
    stranger = next(node for node in graph.starts if middle not in graph.successors[node] and node != middle)
    walk = f"{chr(97 + middle)} a"
    prompts = [f"v w {chr(97 + node)}" for node in (start, stranger, start)]
    codec = frozen.codec
    responses = codec.encode_responses([walk, walk, walk.removesuffix(" a")])
    sequences = build_sequences(codec.encode_prompts(prompts), responses, codec.pad_id)
    params = tiny_params().model_copy(update={"data": WALKS})
    assert true_scores(prompts, sequences, codec, params.data).tolist() == [1.0, 0.0, 0.0]


def test_an_iteration_trains_on_the_verdicts(world: Path, frozen: FrozenModels, tiny_params: Any) -> None:
    settings = {"reward": "rubric", "iterations_per_cycle": 1, "responses_per_prompt": 2, "missing_eos": "none"}
    params = tiny_params(ppo=settings)
    prompts = read_rows(Place().clean / "prompts_train.jsonl", Prompt)
    cycle = Cycle(1, Place().sft, Path("work"), prompts, [], lambda row: None)
    with torch.no_grad():  # a reward model that is not asked can say what it likes
        frozen.reward_model.classifier.score.weight.fill_(torch.nan)  # type: ignore[union-attr,operator]
    run_cycle(ROOM.start, Job(start_accelerator(), params.method, params.alignment, params.shared, cycle, frozen))
    row = read_json(Path("work/curve.json"))[0]

    asked = rows_of_iteration(prompts, 4, 0, params.seed, "ppo/prompts")
    repeated = [row for row in asked for _ in range(2)]
    texts = [row.prompt for row in repeated]
    model, codec = load_model(Place().sft / "policy", Place().reward_model / "model"), frozen.codec
    encoded = list(map(EncodedPrompt, repeated, codec.encode_prompts(texts)))
    whole = FrozenModels.load(Place().frozen, torch.device("cpu"))
    scored = tiny_params(ppo=settings | {"reward": "reward_model"})
    rollouts = Collector(
        start_accelerator(), model, whole.reference, whole, scored.alignment, scored.shared, scored.method
    ).roll_out(encoded, 0)
    responses = [codec.decode([tokens[mask].tolist()])[0] for tokens, mask in zip(*rollouts.sequences[2:], strict=True)]
    gold = [grade(prompt, response).gold for prompt, response in zip(texts, responses, strict=True)]
    assert row["reward"] == row["shaped_score"] == pytest.approx(sum(gold) / 8, abs=1e-6)
    assert row["reward"] != pytest.approx(float(rollouts.scores.mean()), abs=1e-3)
