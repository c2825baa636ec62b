"""The present champion, measured again: on this candidate's prompts, with this candidate's yardsticks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from components import paths
from components.config import Params
from components.digests import digest
from components.promotion.decision import Record
from components.seeding import derive_seed
from components.tracking.registry import ModelVersion, fetch_policy


def measure_champion(champion: ModelVersion, params: Params, candidate: Sequence[Record]) -> list[Record]:
    """Records of the champion on the prompts of the candidate's records.

    Raises:
        ArtifactError: the champion's files are gone or damaged.
    """
    prompts = {
        row["prompt_id"]: {"id": row["prompt_id"], "prompt": row["prompt"], "kind": row["kind"]} for row in candidate
    }
    samples = params.measurement.test_samples_per_prompt
    with tempfile.TemporaryDirectory() as scratch:
        folder = fetch_policy(champion, Path(scratch))
        if _same_tokens(folder, paths.SFT / "policy"):
            from components.measuring.measure import TEST_STREAM, measure_policy

            return measure_policy(folder, params, list(prompts.values()), samples, TEST_STREAM)
        return _measure_by_text(folder, params, list(prompts.values()) * samples)


def _same_tokens(one: Path, other: Path) -> bool:
    return all(digest(one / name) == digest(other / name) for name in ("tokenizer.json", "proximal.json"))


def _measure_by_text(folder: Path, params: Params, rows: list[Record]) -> list[Record]:
    """Gold or judge of a champion with another tokenizer: it answers with its own, others read the text."""
    from components.engines.answering import Answerer
    from components.measuring.measure import rubric_of
    from components.models.loading import load_codec, load_scorer
    from components.models.text import TextFormat
    from components.passes.forward import in_microbatches, sequence_scores
    from components.passes.sequences import build_sequences

    prompts = [row["prompt"] for row in rows]
    responses = Answerer(folder).answer(
        prompts,
        temperature=params.measurement.temperature,
        max_response_tokens=TextFormat.load(folder).max_response_tokens,
        seed=derive_seed(params.seed, "promotion"),
    )
    if rubric := rubric_of(params.data):
        metric = "gold"
        values = [rubric(prompt, response)[metric] for prompt, response in zip(prompts, responses, strict=True)]
    else:
        metric, judge, codec = (
            "judge",
            load_scorer(paths.JUDGE / "model"),
            load_codec(paths.SFT / "policy"),
        )
        sequences = build_sequences(codec.encode_prompts(prompts), codec.encode_responses(responses), codec.pad_id)
        (scores,) = in_microbatches(
            lambda part: (sequence_scores(judge, part),), sequences, params.measurement.batch_size
        )
        values = scores.tolist()
    return [{"prompt_id": row["id"], metric: value} for row, value in zip(rows, values, strict=True)]
