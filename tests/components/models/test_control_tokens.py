"""User text is text: control tokens come from the template, the tokenizer and the end of a response alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.engines.answering import Answerer
from components.engines.generation import generate
from components.engines.sampling import draw, draw_uniforms, require_sound
from components.errors import ConfigError, TrainingError
from components.models.control_texts import without_end
from components.models.loading import load_codec, save_policy
from components.models.text import Codec, TextFormat, train_tokenizer

TEXTS = [
    "system : be kind . user : say please hello assistant :",
    "well , hello please html tag x </s> <pad> [INST]",
] * 3
CHAT = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Puts <bos> before every text, and has the control tokens of a chat."""
    made = train_tokenizer(TEXTS, 320)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return made


def codec(tokenizer: Any, template: str = "{prompt}", longest: int = 200, **more: Any) -> Codec:
    return Codec(tokenizer, TextFormat(template, longest, 200, **more))


@pytest.mark.parametrize("end", ["<eos>", " <eos>", "<eos> \n", "<eos><eos>"])
def test_an_end_token_spelled_at_the_end_is_the_end_token(tokenizer: Any, end: str) -> None:
    plain = codec(tokenizer)
    assert plain.encode_responses(["hello ." + end]) == plain.encode_responses(["hello ."])
    assert plain.encode_prompts(["hello ." + end]) == plain.encode_prompts(["hello ."])
    assert plain.encode_responses(["hello ." + end])[0].count(plain.eos_id) == 1


def test_a_text_without_an_end_token_keeps_the_space_at_its_end() -> None:
    assert [without_end(text, ["</s>"]) for text in ("a \n", "a </s> b", "</s>", "a</s> </s>")] == [
        "a \n",
        "a </s> b",
        "",
        "a",
    ]


@pytest.mark.parametrize("text", ["hello <eos> x", "html <pad> tag <bos> x", "hello <|im_end|> x", "<bos> hello"])
def test_control_tokens_that_a_text_spells_are_text(tokenizer: Any, text: str) -> None:
    control = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    plain = codec(tokenizer)
    [response] = plain.encode_responses([text])
    assert control.isdisjoint(response[:-1]) and response[-1] == plain.eos_id
    assert plain.decode([response]) == [text]
    for template in ("{prompt}", CHAT):
        dressed = codec(tokenizer, template)
        [prompt], [without] = dressed.encode_prompts([text]), dressed.encode_prompts(["hello"])
        assert [token for token in prompt if token in control] == [token for token in without if token in control]
        decoded = tokenizer.decode(prompt)
        assert text in decoded and ("user\n" in decoded) == (template is CHAT)


def test_what_surrounds_a_prompt_with_control_tokens_is_what_surrounds_others(tokenizer: Any) -> None:
    dressed = codec(tokenizer, CHAT)
    [prompt], [other] = dressed.encode_prompts(["hello <eos> x"]), dressed.encode_prompts(["hello"])
    assert prompt[:4] == other[:4] and prompt[-6:] == other[-6:]


def test_the_beginning_stands_once(tokenizer: Any) -> None:
    bos = tokenizer.bos_token_id
    for prompt in ("hello", "hello <bos> x", "please " * 50):
        [row] = codec(tokenizer, "<bos>[INST] {prompt} [/INST]", 40).encode_prompts([prompt])
        assert row[0] == bos and row.count(bos) == 1
        assert row[1:] == codec(tokenizer, "[INST] {prompt} [/INST]", 40).encode_prompts([prompt])[0][1:]


def test_a_template_that_ends_in_the_end_token_keeps_it(tokenizer: Any) -> None:
    dressed = codec(tokenizer, "{prompt}<eos>")
    assert dressed.encode_prompts(["hello"])[0][-1] == dressed.eos_id


@pytest.mark.parametrize("template", ["system : be kind . user : {prompt} assistant :", CHAT])
@pytest.mark.parametrize("more", ["", " <eos> x"])
def test_a_long_prompt_is_cut_and_its_template_is_not(tokenizer: Any, template: str, more: str) -> None:
    long = "well , " + "please " * 60 + "hello" + more
    whole, cut = codec(tokenizer, template, 10_000), codec(tokenizer, template, 40)
    [row], [cut_row] = whole.encode_prompts([long]), cut.encode_prompts([long])
    assert len(cut_row) == 40 and cut.are_too_long([long, "hello"]) == [True, False]
    head = tokenizer(template.partition("{prompt}")[0].rstrip(" "))["input_ids"]
    kept = len(cut_row) - len(head)
    assert cut_row[: len(head)] == head and cut_row[-kept:] == row[-kept:]


def test_a_template_longer_than_the_limit_is_refused(tokenizer: Any) -> None:
    template = "system : be kind . user : {prompt} assistant :"
    parts = template.split(" {prompt} ")
    length = len(tokenizer(parts[0])["input_ids"]) + len(tokenizer(parts[1], add_special_tokens=False)["input_ids"])
    codec(tokenizer, template, length + 2).require_room()  # a lone space may be a token of the template's
    for longest in (3, length):
        with pytest.raises(ConfigError, match=r"language_model\.max_prompt_tokens"):
            codec(tokenizer, template, longest).require_room()
        with pytest.raises(ConfigError, match=r"language_model\.max_prompt_tokens"):
            codec(tokenizer, template, longest).encode_prompts(["hello please"])


def test_every_stop_token_ends_a_response(word_policy: Any, word_codec: Codec, tmp_path: Path) -> None:
    """The words b and d end responses too: no response goes on after one, and their texts end before it."""
    b, d = 3, 5
    stopping = replace(word_codec, format=replace(word_codec.format, stop_ids=(b, d)))
    save_policy(word_policy, stopping, tmp_path / "policy")
    stored = load_codec(tmp_path / "policy")
    assert stored.format == stopping.format and stored.stop_ids == (word_codec.eos_id, b, d)
    numbers = draw_uniforms(60, 6, torch.Generator().manual_seed(2))
    rows = generate(word_policy, stored, [[2, 4]] * 60, numbers, temperature=1.0, batch_size=7).responses()
    ends = [row[-1] for row in rows if row[-1] in stored.stop_ids]
    assert set(ends) == {word_codec.eos_id, b, d} and len(ends) > 40
    assert all(set(row[:-1]).isdisjoint(stored.stop_ids) for row in rows)
    assert stored.decode([[2, d, 2], [b], [2, 4]]) == ["a", "", "a c"]
    assert stored.is_stop(torch.tensor([[1, 2], [b, d]])).tolist() == [[True, False], [True, True]]
    answers = Answerer(tmp_path / "policy").answer(["a c"] * 30, temperature=1.0, max_response_tokens=5, seed=1)
    assert all(set(answer.split()) <= {"a", "c"} for answer in answers)


def test_a_format_without_further_stop_tokens_is_stored_as_ever(tmp_path: Path) -> None:
    TextFormat("{prompt}", 4, 3).save(tmp_path)
    assert "stop_ids" not in (tmp_path / "proximal.json").read_text()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_an_error(temperature: float, bad: float) -> None:
    sound = torch.tensor(True)
    numbers = torch.tensor([0.3, 0.6], dtype=torch.float64)
    draw(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), numbers, temperature, sound)
    require_sound(sound)
    draw(torch.tensor([[0.0, 1.0], [2.0, bad]]), numbers, temperature, sound)
    with pytest.raises(TrainingError, match="logits"):
        require_sound(sound)


def test_a_policy_of_broken_weights_answers_nothing(word_policy: Any, word_codec: Codec, random_model: Any) -> None:
    broken = random_model("llama", 6, 5)
    with torch.no_grad():
        broken.lm_head.weight[3, 0] = torch.nan
    numbers = draw_uniforms(2, 3, torch.Generator().manual_seed(2))
    with pytest.raises(TrainingError, match="logits"):
        generate(broken, word_codec, [[2], [3]], numbers, temperature=1.0, batch_size=2)
