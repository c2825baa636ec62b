"""Mistakes of the kind that nobody sees in a curve: each stops the run that it is planted in, and is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import random_causal_model
from chats import tokenizer_of
from planted import Stopped, interrupted, nudge

from components.alignment.dpo import learner as dpo_learner
from components.alignment.policy_gradient import actor_critic, learner, reference, rollouts
from components.alignment.policy_gradient.actor_critic import ActorCritic
from components.alignment.policy_gradient.update import Updater
from components.alignment.preferences import update as dpo_update
from components.alignment.q_learning import checkpoint as q_checkpoint
from components.artifacts import read_json, write_json
from components.config import Params
from components.engines import cache, generation, own
from components.models.adapter_views import AdapterPolicy
from components.models.chat import Chat
from components.place import Place
from components.stages import perform
from components.tracking import store
from components.tracking.history import search

ChangeParams = Callable[..., Params]
ONE = {"iterations_per_cycle": 1}
SAMPLER = "the engine samples from another distribution than the one that is trained"
REFERENCE = "the policy is not its reference, from which it starts"


def told(name: str) -> float:
    """What the last run of a stage recorded of a check."""
    [*_, run] = sorted(search("tags.stage = 'alignment'"), key=lambda found: found.started)
    return float(store.client().get_metric_history(run.run_id, f"check/{name}")[-1].value)


def test_the_wrong_reference(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the policy with one weight a little off."""
    change_params(ppo=ONE)
    real = learner.reference_of

    def wrong(*arguments: Any) -> Any:
        reference = real(*arguments)
        with torch.no_grad():
            reference.base_model.norm.weight[0] += 0.01
        return reference

    monkeypatch.setattr(learner, "reference_of", wrong)
    said = stopped()
    assert said.startswith(f"error: {REFERENCE}") and "ppo, iteration 1\n" in said
    assert "largest gap to the reference's logprobs: at most 0.0001 nats a token" in said
    assert told("reference") > 1e-4 and not (Place().alignment / "1").exists()


def test_a_reference_that_is_not_refreshed(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second cycle's ought to be the policy that it starts with."""
    params = change_params(ppo=ONE, policy_gradient={"reference": "refreshed"})
    perform("alignment", params, Place(), 1)
    with monkeypatch.context() as patch:
        patch.setattr(reference, "polyak", lambda old, new, weight: [each.clone() for each in old])
        said = stopped("alignment", "--cycle", "2")
    assert said.startswith(f"error: {REFERENCE}") and "ppo, iteration 2\n" in said
    perform("alignment", params, Place(), 2)
    assert "reference" in {row["name"] for row in read_json(Place().alignment / "2" / "checks.json")}


def test_a_temperature_that_is_not_in_what_is_recorded(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgotten in all forward passes alike, so that KL and ratios are right; what is sampled from is another one."""
    change_params(ppo=ONE | {"temperature": 0.7})
    for module, name in ((actor_critic, "response_logprobs_and_entropy"), (rollouts, "response_logprobs")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda policy, part, _temperature, real=real: real(policy, part, 1.0))
    said = stopped()
    assert said.startswith(f"error: {SAMPLER}") and "at most 0.001 nats a token" in said
    assert told("sampler") > 0.01


def test_positions_that_are_off_by_one_in_the_decode(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_params(ppo=ONE)
    real = generation.position_ids

    def off_from_the_last_on(mask: torch.Tensor) -> torch.Tensor:
        positions = real(mask)
        positions[:, -1] += 1
        return positions

    monkeypatch.setattr(generation, "position_ids", off_from_the_last_on)
    assert stopped().startswith(f"error: {SAMPLER}")


def test_a_cache_that_mixes_rows_up_once_some_have_ended(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only responses that went on after another one had ended are touched."""
    change_params(ppo=ONE | {"rollouts_per_iteration": 16})
    real = cache.RoomyLayer.batch_select_indices
    monkeypatch.setattr(cache.RoomyLayer, "batch_select_indices", lambda layer, rows: real(layer, rows.flip(0)))
    assert stopped().startswith(f"error: {SAMPLER}")


def test_dropout_that_is_left_on_in_the_updates(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_params(ppo=ONE)
    made, update = ActorCritic.__init__, Updater.update

    def with_dropout(pair: Any, policy: Any, value_model: Any) -> None:
        made(pair, policy, value_model)
        head = policy.get_output_embeddings()
        head.register_forward_pre_hook(lambda _, hidden: (torch.nn.functional.dropout(hidden[0], 0.1, pair.training),))
        pair.eval()

    def left_on(updater: Any, *arguments: Any) -> Any:
        updater._model.train()
        return update(updater, *arguments)

    monkeypatch.setattr(ActorCritic, "__init__", with_dropout)
    monkeypatch.setattr(Updater, "update", left_on)
    said = stopped()
    assert said.startswith("error: the policy that trains is not the one that was sampled from")
    assert "ppo, iteration 1, step 1\n" in said and told("ratio") > 1e-3 >= told("sampler")


def test_the_reference_of_dpo_at_another_temperature(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_params(method="dpo", measurement={"temperature": 0.7})
    real = dpo_learner.reference_logprobs
    monkeypatch.setattr(
        dpo_learner, "reference_logprobs", lambda *args, **named: real(*args, **named | {"temperature": 1.0})
    )
    said = stopped()
    assert said.startswith(f"error: {REFERENCE}") and "dpo, iteration 1, step 1\n" in said


def test_a_loss_of_dpo_whose_smoothing_adds_up_to_more_than_one(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_params(method="dpo", dpo={"label_smoothing": 0.2})
    real = dpo_update.dpo_loss

    def unweighted(*logprobs: Any, label_smoothing: float, **named: Any) -> Any:
        return real(*logprobs, **named) + label_smoothing * real(*logprobs, **named)

    monkeypatch.setattr(dpo_update, "dpo_loss", unweighted)
    said = stopped()
    assert said.startswith("error: the loss of DPO does not begin where it must") and "0.6931" in said
    assert told("first_loss") == pytest.approx(0.2, abs=1e-4)


def test_heads_of_q_learning_that_begin_with_something_to_say(
    world: Path, change_params: ChangeParams, stopped: Stopped, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_params(method="q_learning")
    real = q_checkpoint.new_heads

    def loud(*arguments: Any) -> Any:
        value_head, q_heads = real(*arguments)
        torch.nn.init.normal_(q_heads[0][-1].weight)
        torch.nn.init.normal_(q_heads[1][-1].weight)
        return value_head, q_heads

    monkeypatch.setattr(q_checkpoint, "new_heads", loud)
    said = stopped()
    assert said.startswith(f"error: {REFERENCE}") and "q_learning, iteration 1\n" in said


@pytest.mark.parametrize(
    ("file", "name", "said"),
    [
        ("policy/model.safetensors", "model.layers.0.mlp.up_proj.weight", "policy/model.layers.0.mlp.up_proj.weight"),
        ("state/value_model/model.safetensors", "score.weight", "value_model/classifier.score.weight"),
        ("optimizer.safetensors", "policy.model.norm.weight/exp_avg", "policy.model.norm.weight/exp_avg"),
    ],
)
def test_what_changed_on_disk_before_a_cycle_goes_on(
    world: Path, change_params: ChangeParams, stopped: Stopped, file: str, name: str, said: str
) -> None:
    """One number by its last bit."""
    folder = interrupted(change_params(), stop_in=3)
    nudge(folder / file, name)
    message = stopped()
    assert message.startswith("error: the interrupted cycle would not go on with what it had come to")
    assert f"1 of {len(read_json(folder / 'as_stored.json')['optimizer' if 'opt' in file else 'weights'])}" in message
    assert f", {said}\n" in message and f"ppo, iteration 2, as {folder} has it" in message
    assert "delete that folder" in message
    shutil.rmtree(folder)
    perform("alignment", change_params(), Place(), 1)  # as it says


def test_what_computes_otherwise_than_before(world: Path, change_params: ChangeParams, stopped: Stopped) -> None:
    """The same weights, read by a model with other positions."""
    folder = interrupted(change_params(), stop_in=3)
    config = read_json(folder / "policy" / "config.json")
    config["rope_parameters"]["rope_theta"] = 100.0
    write_json(folder / "policy" / "config.json", config)
    assert "largest gap to the policy's logprobs before the interruption: at most 0.0001 nats" in stopped()
    assert told("resumed_weights") == told("resumed_optimizer") == 0.0


def test_a_checkpoint_that_lost_what_it_was(world: Path, change_params: ChangeParams, stopped: Stopped) -> None:
    folder = interrupted(change_params(), stop_in=3)
    (folder / "as_stored.json").write_text("{}")
    assert stopped().startswith("error: a stored fingerprint of a checkpoint cannot be read")


def test_a_codec_that_swallows_all_turns_but_the_last(
    raw_world: Path, tracking: str, tmp_path: Path, change_params: ChangeParams, stopped: Stopped,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a chat model, once it is trained: what it is asked is not what a dialogue begins with."""
    world = Path(shutil.copytree(raw_world, tmp_path / "world"))
    monkeypatch.chdir(world)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    tokenizer = tokenizer_of("phi")
    random_causal_model("llama", len(tokenizer), seed=3).save_pretrained("checkpoint")
    tokenizer.save_pretrained("checkpoint")
    chat = {"checkpoint": "checkpoint", "checkpoint_files": "checkpoint"}
    chat |= {"prompt_template": None, "chat_template": "tokenizer", "max_prompt_tokens": 58}
    params = change_params(language_model=chat, ppo=ONE, policy_gradient={"missing_eos": "none"})
    for stage in ("sft", "reward_model", "judge"):
        perform(stage, params, Place())
    with monkeypatch.context() as patch:
        patch.setattr(
            Chat,
            "encode",
            lambda chat, asked: chat._encode([chat.template.conversation(each)[-1:] for each in asked], is_open=True),
        )
        assert "does not round-trip" in stopped()
    perform("alignment", params, Place(), 1)
    [first, *_] = read_json(Place().alignment / "1" / "checks.json")
    assert (first["name"], first["largest"], first["times"]) == ("template", 0, 1) and told("template") == 0.0


class TestAdapters:
    """The same with all models on one base."""

    def test_the_base_alone_as_reference(
        self,
        adapted_world: Path,
        change_adapted_params: ChangeParams,
        stopped: Stopped,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The adapter switched off, which is the checkpoint before SFT."""
        change_adapted_params(ppo=ONE)

        def without_adapter(settings: Any, job: Any, *_: Any) -> AdapterPolicy:
            policy = job.frozen.reference
            return AdapterPolicy(policy.base, policy.origin, policy.shape, None)

        monkeypatch.setattr(learner, "reference_of", without_adapter)
        assert stopped().startswith(f"error: {REFERENCE}")

    def test_an_engine_that_keeps_the_weights_that_it_had(
        self,
        adapted_world: Path,
        change_adapted_params: ChangeParams,
        stopped: Stopped,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """At the first iteration they are the same ones still."""
        change_adapted_params(policy_gradient={"learning_rate": 0.01})
        real, kept = own.generate, {}

        def from_the_first(policy: Any, *arguments: Any, **named: Any) -> Any:
            first = kept.setdefault("policy", AdapterPolicy(policy.base, policy.origin, policy.shape, policy.weights()))
            return real(first, *arguments, **named)

        monkeypatch.setattr(own, "generate", from_the_first)
        said = stopped()
        assert said.startswith(f"error: {SAMPLER}") and "ppo, iteration 2\n" in said

    def test_an_adapter_that_changed_on_disk(
        self, adapted_world: Path, change_adapted_params: ChangeParams, stopped: Stopped
    ) -> None:
        folder = interrupted(change_adapted_params(), stop_in=3)
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        nudge(folder / "policy" / "adapter_model.safetensors", name)
        assert "policy/adapter.model.layers.0.self_attn.q_proj.lora_A.weight\n" in stopped()
