"""A workspace with tiny real models and a real registry, for the tests of promotion."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from records_by_hand import RUBRIC, record, without

from components.artifacts import write_json, write_jsonl
from components.config import Params, load_params
from components.measuring.records import write_records
from components.models.loading import (
    new_policy,
    new_scalar_model,
    save_best_of_n,
    save_policy,
    save_scalar_model,
)
from components.models.text import Codec, TextFormat, train_tokenizer
from components.place import Place
from components.reports.page import SLOT
from components.tracking import store as tracking_store
from components.tracking.runs import PARENT_VARIABLE

ROOT = Path(__file__).resolve().parents[3]
FAULTS = {
    "printer": "does not start",
    "router": "gets very hot",
    "screen": "stays dark",
    "keyboard": "keeps freezing",
    "scanner": "is very slow",
    "laptop": "does not charge",
}
GOOD_SCORER = {"accuracy_heldout": 0.7, "longer_wins_accuracy_heldout": 0.6, "comparisons_heldout": 50}
PLAIN = {"kind": "known", "response_tokens": 5, "kl": 2.0}
PROMPTS = [f"My {device} {fault}. What can I do?" for device, fault in FAULTS.items()]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders policy_0..4 (3 with another tokenizer, 4 the best of 2 of 1), reward_model and judge."""
    folder = tmp_path_factory.mktemp("models")
    params = load_params(ROOT / "params.yaml")
    scratch = {
        "vocabulary_size": 300,
        "hidden_size": 16,
        "intermediate_size": 16,
        "layers": 1,
        "attention_heads": 1,
    }
    config = params.language_model.model_copy(
        update={"scratch": params.language_model.scratch.model_copy(update=scratch), "max_response_tokens": 6}
    )
    text_format = TextFormat(config.prompt_template, config.max_prompt_tokens, config.max_response_tokens)
    tokenizers = [train_tokenizer(PROMPTS, 300), train_tokenizer(["xyzzy xyzzy plugh plugh"] * 9, 290)]
    for number in range(4):
        codec = Codec(tokenizers[number == 3], text_format)
        ids = {
            "pad_token_id": codec.pad_id,
            "eos_token_id": codec.eos_id,
            "bos_token_id": int(codec.tokenizer.bos_token_id),
        }
        policy = new_policy(config, len(codec.tokenizer), ids, seed=number)
        save_policy(policy, codec, folder / f"policy_{number}")
    for seed, name in enumerate(("reward_model", "judge")):
        save_scalar_model(new_scalar_model(folder / "policy_0", seed), folder / name)
    save_best_of_n(folder / "policy_1", folder / "reward_model", 2, folder / "policy_4")
    return folder


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def workspace(shared_store: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with the outputs of all earlier stages; policy_0 is the SFT policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared_store / 'mlflow.db'}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    shutil.copytree(models / "policy_0", Place().sft / "policy")
    shutil.copytree(models / "reward_model", Place().reward_model / "model")
    shutil.copytree(models / "judge", Place().judge / "model")
    for folder in (Place().reward_model, Place().judge):
        write_json(folder / "metrics.json", GOOD_SCORER)
    write_json(Place().selection / "selection.json", {"cycle": 2})
    write_jsonl(
        (Place().clean / "prompts_test.jsonl"),
        [{"id": f"p{number}", "prompt": prompt} for number, prompt in enumerate(PROMPTS)],
    )
    Place().evaluation.mkdir(parents=True)
    (Place().evaluation / "report.html").write_text(f"<h1>Gold rose</h1>{SLOT}<h2>Figures</h2>")
    Path("dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  alignment@1:\n    cmd: x\n    outs:\n"
        "    - path: artifacts/alignment/1/policy\n      md5: 0011.dir\n"
        "    - path: artifacts/alignment/1/state\n      md5: 2233.dir\n"
    )
    return tmp_path


def params_named(name: str, min_prompts: int = 2, **promotion: float) -> Params:
    """The shipped params, small, with a registered model of the test's own."""
    params = load_params(ROOT / "params.yaml")
    return params.model_copy(
        update={
            "promotion": params.promotion.model_copy(
                update={"registered_model": name, "min_prompts": min_prompts} | promotion
            ),
            "language_model": params.language_model.model_copy(update={"max_response_tokens": 6}),
        }
    )


def put_candidate(models: Path, number: int, gold: float, has_rubric: bool = True, **columns: Any) -> None:
    """Make policy_<number> the candidate, with records that say `gold` for it and 0.25 for SFT."""
    shutil.rmtree(Place().selection / "policy", ignore_errors=True)
    shutil.copytree(models / f"policy_{number}", Place().selection / "policy")
    records = {
        policy: [
            record(f"p{prompt_number}", **known, prompt=prompt, judge=value, gold=value)
            for prompt_number, prompt in enumerate(PROMPTS)
        ]
        for policy, value, known in (("sft", 0.25, PLAIN), ("candidate", gold, PLAIN | columns))
    }
    if not has_rubric:
        records = {policy: without(rows, *RUBRIC) for policy, rows in records.items()}
    write_records(Place().evaluation / "records.jsonl", records)


def without_rubric(params: Params) -> Params:
    return params.model_copy(update={"data": params.data.model_copy(update={"rubric": None})})


def versions(name: str) -> list[Any]:
    found = tracking_store.client().search_model_versions(f"name = '{name}'")
    return sorted(int(version.version) for version in found)
