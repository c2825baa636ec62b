"""The schema that editors read: the committed file is what the code says, and it judges as the code does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from config_changes import ABSENT, Values, changed
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from components.config.keys import dotted_keys
from components.config.schema import FILE, json_schema

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_file_is_what_the_code_says_and_params_yaml_names_it() -> None:
    assert json.loads((ROOT / FILE).read_text()) == json_schema(), f"proximal params --schema > {FILE}"
    assert (ROOT / "params.yaml").read_text().startswith(f"# yaml-language-server: $schema={FILE}\n")


@pytest.mark.parametrize("path", ["params.yaml", "infra/presets/randomwalks.yaml", "tests/e2e/params.yaml"])
def test_shipped_params_are_valid(path: str) -> None:
    assert list(Draft202012Validator(json_schema()).iter_errors(YAML(typ="safe").load(ROOT / path))) == []


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("seed", "one", ["seed"]),
        ("method", "sarsa", ["method"]),
        ("sft.epohcs", 3, ["sft"]),
        ("sft.epochs", ABSENT, ["sft"]),
        ("policy_gradient.kl_estimator", "k4", ["policy_gradient", "kl_estimator"]),
        ("ppo.gamma", 1.5, ["ppo", "gamma"]),
        ("grpo.gamma", 1.0, ["grpo"]),
        ("cycles.1.stop", 1, ["cycles", "1"]),
    ],
)
def test_what_cannot_be_is_marked_at_its_place(shipped: Values, key: str, value: Any, path: list[str]) -> None:
    (error,) = Draft202012Validator(json_schema()).iter_errors(changed(shipped, {key: value}))
    # Where a section may also be null, the fault lies below both.
    deepest = max([error, *(error.context or [])], key=lambda fault: len(fault.absolute_path))
    assert list(deepest.absolute_path) == path


def test_what_params_fill_in_may_be_absent(shipped: Values) -> None:
    values = changed(shipped, {"dpo": ABSENT, "ppo.learning_rate": 1e-4})
    assert list(Draft202012Validator(json_schema()).iter_errors(values)) == []


def test_what_is_said_beside_a_field_describes_it() -> None:
    definitions = json_schema()["$defs"]
    assert definitions["Ppo"]["properties"]["kl_coef"]["description"] == "where the adaptive control starts"
    suite = definitions["CheckedSuite"]["properties"]
    assert suite["batch_size"]["description"] == "responses in a call of the checker"
    assert definitions["Selection"]["description"] == "Which cycle becomes the candidate."


def test_every_key_has_its_place_in_the_schema() -> None:
    assert {"seed", "ppo.kl_coef", "language_model.scratch.layers", "cycles"} <= set(dotted_keys())
    assert not [key for key in dotted_keys() if key.startswith(("cycles.", "data.rubric_options."))]
