"""SFT of a chat model: what it learns, what it refuses before it trains, and the checkpoint as it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from chats import CHATML, PHI, tokenizer_of

from components.artifacts import read_jsonl, write_jsonl
from components.config import Params
from components.errors import ConfigError, DataError
from components.launch import main
from components.models.loading import load_codec, load_policy
from components.place import Place
from components.stages import perform
from components.tracking import store
from components.tracking.history import search

ChangeParams = Callable[..., Params]
SOURCE = Place().clean / "demonstrations.jsonl"
TURNS = [
    {"role": role, "content": content}
    for role, content in zip(["user", "assistant"] * 3, ["one", "Two.", "three", "Four.", "five", "Six."], strict=True)
]
CHAT = {
    "checkpoint": "checkpoint",
    "checkpoint_files": "checkpoint",
    "prompt_template": None,
    "chat_template": "tokenizer",
    "max_prompt_tokens": 200,
    "max_response_tokens": 40,
}


@pytest.fixture
def place(raw_world: Path, tracking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a small instruct checkpoint and a dialogue of three turns, whose assistant turns are learned."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(shutil.copytree(raw_world, tmp_path / "world"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(folder)
    torch.manual_seed(1)
    tokenizer = tokenizer_of("phi")
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16}
    more: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "eos_token_id": tokenizer.eos_token_id}
    LlamaForCausalLM(LlamaConfig(**sizes, **more)).save_pretrained("checkpoint")
    tokenizer.save_pretrained("checkpoint")
    rows: list[dict[str, Any]] = [
        {"id": str(end), "prompt": f"up to {end}", "messages": TURNS[:end], "response": TURNS[end]["content"]}
        for end in (1, 3, 5)
    ]
    del rows[0]["messages"]
    rows[0]["prompt"] = "one"
    write_jsonl(SOURCE, rows)
    return folder


def sft(change_params: ChangeParams, **changes: Any) -> dict[str, Any]:
    language_model = CHAT | changes.pop("language_model", {})
    settings = {"batch_size": 3, "microbatch_size": 3, "epochs": 1} | changes.pop("sft", {})
    perform("sft", change_params(language_model=language_model, sft=settings, **changes), Place())
    metrics: dict[str, Any] = json.loads((Place().sft / "metrics.json").read_text())
    return metrics


def test_the_loss_counts_the_assistants_tokens_alone(place: Path, change_params: ChangeParams) -> None:
    """Of the dialogue as transformers writes it, each turn's text with its end of turn, by Hugging Face's own loss."""
    metrics = sft(change_params, sft={"learning_rate": 1e-12})
    policy, tokenizer = load_policy(Place().sft / "policy"), tokenizer_of("phi")
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    total, count = 0.0, 0
    for number in (1, 3, 5):
        prompt = tokenizer.apply_chat_template(TURNS[:number], add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(TURNS[: number + 1], return_dict=False)
        whole = whole[: len(whole) - whole[::-1].index(end)]
        assert whole[: len(prompt)] == prompt
        labels = torch.tensor([[-100] * len(prompt) + whole[len(prompt) :]])
        with torch.no_grad():
            loss = policy(torch.tensor([whole]), labels=labels).loss
        total, count = total + float(loss) * (len(whole) - len(prompt)), count + len(whole) - len(prompt)
    assert metrics["loss"] == pytest.approx(total / count, abs=1e-5)
    assert metrics["response_tokens"] == pytest.approx(count / 3)
    assert metrics["truncated_responses_fraction"] == metrics["truncated_prompts_fraction"] == 0


def test_what_is_stored_asks_as_the_template_does_and_ends_where_a_turn_ends(
    place: Path, change_params: ChangeParams
) -> None:
    sft(change_params, language_model={"system_prompt": "Be kind."})
    policy, codec = load_policy(Place().sft / "policy"), load_codec(Place().sft / "policy")
    tokenizer = tokenizer_of("phi")
    turns = [{"role": "system", "content": "Be kind."}, *TURNS[:3]]
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert codec.encode_prompts([TURNS[:3]]) == [expected]  # type: ignore[list-item]
    stops = [tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id]
    assert list(codec.stop_ids) == policy.generation_config.eos_token_id == stops


def test_without_an_epoch_the_checkpoint_is_the_reference(place: Path, change_params: ChangeParams) -> None:
    for brought in ("rows", "an empty file", "no file"):
        if brought == "an empty file":
            SOURCE.write_text("")
        elif brought == "no file":
            SOURCE.unlink()
        metrics = sft(change_params, sft={"epochs": 0})
        assert metrics["epochs"] == 0 and "loss" not in metrics
        assert metrics["demonstrations"] == (3 if brought == "rows" else 0)
        stored, checkpoint = load_policy(Place().sft / "policy"), load_policy(Path("checkpoint"))
        for name, weight in checkpoint.state_dict().items():
            assert torch.equal(stored.state_dict()[name], weight)
    SOURCE.write_text("")
    with pytest.raises(DataError, match="no demonstrations") as caught:
        sft(change_params)
    assert "sft.epochs: 0" in caught.value.do


def test_without_an_epoch_the_checkpoint_is_checked_all_the_same(place: Path, change_params: ChangeParams) -> None:
    broken = CHATML.replace("assistant", "model")
    for changes, said in (
        ({"chat_template": broken}, "does not end the assistant's turn"),
        ({"max_prompt_tokens": 3}, "leaves no room"),
        ({"chat_template_options": {"enable_thinking": False}}, "does not read an option"),
    ):
        with pytest.raises(ConfigError, match=said):
            sft(change_params, sft={"epochs": 0}, language_model=changes)
        assert not Place().sft.exists()


def test_messages_without_a_chat_template_and_a_checkpoint_without_one_are_refused(
    place: Path, change_params: ChangeParams
) -> None:
    with pytest.raises(ConfigError, match="no chat template for messages"):
        sft(change_params, language_model={"prompt_template": "{prompt}", "chat_template": None})
    (place / "checkpoint" / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="the checkpoint's tokenizer has no chat template"):
        sft(change_params)
    assert not Place().sft.exists()


def test_an_instruct_model_that_gets_bare_prompts_is_warned_of(
    place: Path, change_params: ChangeParams, caplog: pytest.LogCaptureFixture
) -> None:
    write_jsonl(SOURCE, [row | {"messages": None} for row in read_jsonl(SOURCE)])
    sft(change_params, language_model={"prompt_template": "{prompt}", "chat_template": None})
    assert "brings a chat template" in caplog.text
    caplog.clear()
    sft(change_params)
    assert "brings a chat template" not in caplog.text


def test_a_scratch_model_learns_chats_in_a_template_of_params(place: Path, change_params: ChangeParams) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    more = {"checkpoint": "scratch", "checkpoint_files": "params.yaml", "chat_template": template}
    sft(change_params, language_model=more)
    codec = load_codec(Place().sft / "policy")
    asked: Any = TURNS[:3]
    [row], [response] = codec.encode_prompts([asked]), codec.encode_responses(["Four."])
    whole = codec.tokenizer.apply_chat_template(TURNS[:4], return_dict=False)
    assert row + response == whole and whole.count(codec.tokenizer.bos_token_id) == 1
    assert whole.count(codec.eos_id) == 4


def test_a_template_that_swallows_turns_stops_sft_and_a_sound_one_is_told_of(
    place: Path, change_params: ChangeParams, capsys: pytest.CaptureFixture[str]
) -> None:
    """It writes the last three turns of however many: what was asked is not the beginning of the dialogue."""
    swallowing = PHI.replace("for message in messages", "for message in messages[-3:]")
    change_params(language_model=CHAT | {"chat_template": swallowing})
    with patch.dict(os.environ), pytest.raises(SystemExit) as ended:
        main.main(["sft"], standalone_mode=False)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "error: " in said and "does not round-trip" in said
    assert "expected:" in said and "found:" in said and not Place().sft.exists()
    sft(change_params)
    [*_, run] = sorted(search("tags.stage = 'sft'"), key=lambda found: found.started)
    assert [point.value for point in store.client().get_metric_history(run.run_id, "check/template")] == [0.0]
