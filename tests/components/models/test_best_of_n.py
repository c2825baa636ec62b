"""The best of n responses: against plain sampling, the scorer, and probabilities by enumeration."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare, kstest

from components.engines.answering import Answerer
from components.engines.generation import generate
from components.engines.sampling import draw_uniforms
from components.errors import ArtifactError, TrainingError
from components.models.best_of_n import BestOfNPolicy, candidate_uniforms
from components.models.loading import load_policy, new_scalar_model, save_best_of_n, save_policy, save_scalar_model
from components.models.scalar_model import ScalarModel
from components.models.text import Codec
from components.passes.forward import sequence_scores
from components.passes.sequences import Sequences, build_sequences

PAD, EOS, A, B, C, D = range(6)  # the six words
PROMPTS = [[A, B, C], [B], [D, D, A, B], [C, A], [A], [B, C, D, A]]
Rows = list[list[int]]


@pytest.fixture
def stored(word_policy: Any, word_codec: Codec, tmp_path: Path) -> Path:
    """The folder of a policy."""
    save_policy(word_policy, word_codec, tmp_path / "policy")
    return tmp_path / "policy"


@pytest.fixture
def scorer(stored: Path) -> ScalarModel:
    return new_scalar_model(stored, seed=4)


def numbers_of(count: int, length: int = 5, seed: int = 11) -> torch.Tensor:
    return draw_uniforms(count, length, torch.Generator().manual_seed(seed))


def rows_of(sequences: Sequences) -> Rows:
    return [row[mask].tolist() for row, mask in zip(sequences.response_tokens, sequences.response_mask, strict=True)]


@torch.no_grad()
def score(scorer: ScalarModel, prompt: list[int], response: list[int]) -> float:
    """By Hugging Face's own classifier, read at the last token."""
    return float(scorer.classifier.score(scorer.classifier.base_model(torch.tensor([prompt + response]))[0])[0, -1, 0])


def test_each_response_is_the_one_of_n_that_scores_best(
    word_policy: Any, word_codec: Codec, scorer: ScalarModel
) -> None:
    n, numbers = 4, numbers_of(len(PROMPTS))
    policy = BestOfNPolicy(word_policy, scorer, n)
    found = rows_of(generate(policy, word_codec, PROMPTS, numbers, temperature=0.8, batch_size=3))
    every = candidate_uniforms(numbers, n)
    places = set()
    for row, prompt in enumerate(PROMPTS):
        own = every[row * n : row * n + n]
        candidates = rows_of(generate(word_policy, word_codec, [prompt] * n, own, temperature=0.8, batch_size=1))
        best = max(range(n), key=lambda k, p=prompt, c=candidates: score(scorer, p, c[k]))  # type: ignore[misc]
        assert found[row] == candidates[best]
        places.add(best)
    assert len(places) > 1


def test_the_best_of_one_is_what_the_policy_answers(word_policy: Any, word_codec: Codec, scorer: ScalarModel) -> None:
    numbers = numbers_of(len(PROMPTS))
    one, plain = (
        generate(policy, word_codec, PROMPTS, numbers, temperature=1.0, batch_size=4)
        for policy in (BestOfNPolicy(word_policy, scorer, 1), word_policy)
    )
    assert all(torch.equal(found, expected) for found, expected in zip(one, plain, strict=True))


def test_responses_do_not_depend_on_the_batch_around_them(
    word_policy: Any, word_codec: Codec, scorer: ScalarModel
) -> None:
    policy, numbers = BestOfNPolicy(word_policy, scorer, 3), numbers_of(len(PROMPTS))

    def sample(order: list[int], batch_size: int) -> Rows:
        prompts = [PROMPTS[row] for row in order]
        return rows_of(generate(policy, word_codec, prompts, numbers[order], temperature=1.0, batch_size=batch_size))

    expected = sample([*range(len(PROMPTS))], 100)
    assert sample([*range(len(PROMPTS))], 1) == sample([*range(len(PROMPTS))], 4) == expected
    order = [3, 0, 5, 1, 4, 2]
    assert sample(order, 2) == [expected[row] for row in order]
    assert sample([2], 7) == [expected[2]]


@torch.no_grad()
def test_more_to_choose_from_never_scores_less(word_policy: Any, word_codec: Codec, scorer: ScalarModel) -> None:
    """The first responses are the same whatever n."""
    numbers = numbers_of(len(PROMPTS))
    scores = [
        sequence_scores(
            scorer,
            generate(
                BestOfNPolicy(word_policy, scorer, n), word_codec, PROMPTS, numbers, temperature=1.0, batch_size=8
            ),
        )
        for n in (1, 2, 5, 16)
    ]
    for fewer, more in itertools.pairwise(scores):
        assert bool((more >= fewer - 1e-5).all())
    assert bool((scores[-1] > scores[0] + 0.01).any())


def test_responses_are_as_frequent_as_the_choice_makes_them(
    word_policy: Any, word_codec: Codec, scorer: ScalarModel
) -> None:
    """Chi-square over all responses of at most two tokens: P(best = i) = F_i^n - F_(i-1)^n along the scores."""
    prompt, n, count = [A, B], 3, 4000

    @torch.no_grad()
    def probabilities(before: list[int]) -> list[float]:
        return torch.softmax(word_policy(torch.tensor([before])).logits[0, -1].double(), dim=0).tolist()

    first = probabilities(prompt)
    plain = {(EOS,): first[EOS]}
    for token in (PAD, A, B, C, D):
        plain |= {(token, second): first[token] * p for second, p in enumerate(probabilities([*prompt, token]))}
    expected, below = {}, 0.0
    for response in sorted(plain, key=lambda response: score(scorer, prompt, [*response])):
        at_most = below + plain[response]
        expected[response] = at_most**n - below**n
        below = at_most
    sampled = rows_of(
        generate(
            BestOfNPolicy(word_policy, scorer, n),
            word_codec,
            [prompt] * count,
            numbers_of(count, 2),
            temperature=1.0,
            batch_size=count,
        )
    )
    observed = dict.fromkeys(expected, 0)
    for row in sampled:
        observed[tuple(row)] += 1
    often = [response for response, p in expected.items() if p * count >= 5.0]
    counts, means = [observed[r] for r in often], [expected[r] * count for r in often]
    counts.append(count - sum(counts))
    means.append(count - sum(means))
    assert len(often) > 8
    assert chisquare(counts, means).pvalue > 0.01


def test_the_further_numbers_are_even_and_of_their_row_alone() -> None:
    numbers = numbers_of(50, 8)
    every = candidate_uniforms(numbers, 4)
    assert every.shape == (200, 8) and every.dtype == torch.float64
    assert torch.equal(every[::4], numbers)
    assert torch.equal(candidate_uniforms(numbers[[7, 3]], 4), torch.cat([every[28:32], every[12:16]]))
    assert torch.equal(candidate_uniforms(numbers, 9).reshape(50, 9, 8)[:, :4], every.reshape(50, 4, 8))
    further = every.reshape(50, 4, 8)[:, 1:].flatten()
    assert len(further.unique()) == len(further)
    assert kstest(further.tolist(), "uniform").pvalue > 0.01


@torch.no_grad()
def test_as_a_language_model_it_is_the_policy_it_chooses_from(
    word_policy: Any, scorer: ScalarModel, response_logits: Any
) -> None:
    sequences = build_sequences([[A, B], [C]], [[D, EOS], [B, B, EOS]], PAD)
    assert torch.equal(
        response_logits(BestOfNPolicy(word_policy, scorer, 4), sequences), response_logits(word_policy, sequences)
    )


def test_a_score_that_is_not_finite_stops_the_choice(word_policy: Any, word_codec: Codec, scorer: ScalarModel) -> None:
    with torch.no_grad():
        scorer.classifier.score.weight[0, 0] = torch.nan
    with pytest.raises(TrainingError, match="not finite"):
        generate(
            BestOfNPolicy(word_policy, scorer, 2), word_codec, PROMPTS, numbers_of(6), temperature=1.0, batch_size=8
        )


@pytest.fixture
def stored_choice(stored: Path, scorer: ScalarModel, tmp_path: Path) -> Path:
    """The folder of the best of 3."""
    save_scalar_model(scorer, tmp_path / "scorer")
    save_best_of_n(stored, tmp_path / "scorer", 3, tmp_path / "choice")
    return tmp_path / "choice"


def test_a_stored_choice_answers_alike_from_its_folder_alone(
    stored_choice: Path, stored: Path, word_policy: Any, word_codec: Codec, scorer: ScalarModel, tmp_path: Path
) -> None:
    shutil.copytree(stored_choice, tmp_path / "elsewhere")
    shutil.rmtree(stored)
    loaded = load_policy(tmp_path / "elsewhere")
    assert isinstance(loaded, BestOfNPolicy) and loaded.n == 3 and not loaded.training
    numbers = numbers_of(len(PROMPTS))
    found, expected = (
        rows_of(generate(policy, word_codec, PROMPTS, numbers, temperature=1.0, batch_size=4))
        for policy in (loaded, BestOfNPolicy(word_policy, scorer, 3))
    )
    assert found == expected
    settings: dict[str, Any] = {"temperature": 1.0, "max_response_tokens": 3, "seed": 3}
    answers = Answerer(tmp_path / "elsewhere").answer(["a b", "c"] * 8, **settings)
    assert answers == Answerer(stored_choice).answer(["a b", "c"] * 8, **settings)
    assert len(set(answers)) > 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("best_of_n.json", "{}"),
        ("best_of_n.json", '{"n": 0}'),
        ("best_of_n.json", '{"n": "4"}'),
        ("best_of_n.json", "[4]"),
        ("best_of_n.json", '{"n": 4'),
        ("scorer/config.json", "{}"),
        ("scorer/model.safetensors", ""),
        ("model.safetensors", ""),
    ],
)
def test_a_damaged_choice_is_an_error_that_names_it(stored_choice: Path, name: str, content: str) -> None:
    (stored_choice / name).write_text(content)
    with pytest.raises(ArtifactError) as caught:
        load_policy(stored_choice)
    assert str(stored_choice) in caught.value.where


def test_the_file_says_n(stored_choice: Path) -> None:
    assert json.loads((stored_choice / "best_of_n.json").read_text()) == {"n": 3}
