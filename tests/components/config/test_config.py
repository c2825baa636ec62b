"""Every shipped params file loads; every bad one is refused at load, by dotted key."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from components import config
from components.config import Section, load_params, parse_params
from components.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = [ROOT / "params.yaml", *sorted(ROOT.glob("infra/presets/*.yaml")), *sorted(ROOT.glob("tests/e2e/*.yaml"))]
Values = dict[str, Any]
ABSENT = object()


def changed(values: Values, changes: Values) -> Values:
    """A copy with other values at dotted keys; ABSENT removes the key."""
    result = copy.deepcopy(values)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place = result
        for section in sections:
            place = place[section]
        if value is ABSENT:
            del place[key]
        else:
            place[key] = value
    return result


@pytest.fixture
def refused(shipped: Values) -> Callable[..., ConfigError]:
    """The error that the shipped params give with changes."""

    def load(**changes: Any) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            parse_params(changed(shipped, changes), "params.yaml")
        return caught.value

    return load


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_shipped_params_file_loads(path: Path) -> None:
    load_params(path)


def sections() -> Iterator[type[Section]]:
    for value in vars(config).values():
        if isinstance(value, type) and issubclass(value, Section) and value is not Section:
            yield value


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.__name__)
def test_no_value_has_a_default_in_code(section: type[Section]) -> None:
    assert [name for name, field in section.model_fields.items() if not field.is_required()] == []


def test_params_are_frozen(shipped: Values) -> None:
    params = parse_params(shipped, "params.yaml")
    for part, name in ((params, "seed"), (params.ppo, "epochs"), (params.language_model.scratch, "layers")):
        with pytest.raises(ValidationError):
            setattr(part, name, 3)


@pytest.mark.parametrize("key", ["speed", "ppo.leraning_rate", "language_model.scratch.width", "cycles.1.stop"])
def test_an_unknown_key_is_named(refused: Any, key: str) -> None:
    error = refused(**{key: 1})
    assert error.where == f"params.yaml: {key}" and error.found == key


@pytest.mark.parametrize("key", ["seed", "sft", "ppo.gamma", "language_model.scratch.layers", "cycles.1.start"])
def test_a_missing_key_is_named(refused: Any, key: str) -> None:
    error = refused(**{key: ABSENT})
    assert error.where == f"params.yaml: {key}"
    assert (error.expected, error.found) == (f"a value for {key}", "no such key")


def test_of_the_methods_only_the_chosen_one_needs_a_section(shipped: Values, refused: Any) -> None:
    others = dict.fromkeys(("ppo", "grpo", "rloo", "q_learning", "best_of_n"), ABSENT)
    params = parse_params(changed(shipped, {"method": "dpo"} | others), "params.yaml")
    assert params.alignment is params.dpo and params.ppo is None
    assert {"ppo", "dpo"} & params.values().keys() == {"dpo"}
    error = refused(**{"method": "rloo", "rloo": ABSENT})
    assert error.where == "params.yaml: rloo" and "rloo is the chosen method" in error.expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", True),
        ("seed", "1"),
        ("seed", -1),
        ("ppo.epochs", 2.5),
        ("ppo.epochs", "2"),
        ("ppo.epochs", 0),
        ("ppo.gamma", None),
        ("ppo.gamma", 1.5),
        ("ppo.learning_rate", "fast"),
        ("ppo.learning_rate", 0.0),
        ("ppo.learning_rate", math.inf),
        ("ppo.learning_rate", math.nan),
        ("ppo.temperature", 0.0),
        ("ppo.clip_range_low", -0.2),
        ("ppo.clip_range_high", 0.0),
        ("ppo.dual_clip", 1.0),
        ("ppo.value_clip_range", 0.0),
        ("ppo.kl_estimator", "k4"),
        ("ppo.kl_control", "sometimes"),
        ("method", "sarsa"),
        ("reward_model.members", 0),
        ("reward_model.ensemble", "median"),
        ("reward_model.ensemble_std_coef", -0.5),
        ("best_of_n.first_n", 0),
        ("best_of_n.growth", 1),  # every cycle has to be another one
        ("dpo.loss", "hinge"),
        ("dpo.beta", 0.0),
        ("dpo.label_smoothing", 0.5),  # labels would say nothing
        ("dpo.label_smoothing", -0.1),
        ("ppo.whiten_advantages", "yes"),
        ("ppo.rollouts_per_iteration", 1),  # one sequence cannot be whitened
        ("q_learning.tau", 1.0),
        ("q_learning.polyak_alpha", 0.0),
        ("q_learning.decode_beta", -1.0),
        ("measurement.temperature", 0.0),
        ("compute.cpu_threads", 2),
        ("compute.cpu_threads.alignment", 0),
        ("language_model.scratch", []),
        ("language_model.scratch.vocabulary_size", 10),
        ("language_model.checkpoint", ""),
        ("sft", None),
        ("sft.warmup_fraction", 1.01),
        ("sft.gradient_clip", 0.0),
        ("data.rubric", "helpdesk"),  # a module:function
        ("data.rubric", "none"),
        ("data.rubric_options", [1]),
        ("data_validation.max_reject_fraction", -0.1),
        ("evaluation.confidence", 95),
        ("promotion.registered_model", "policy@champion"),
    ],
)
def test_a_wrong_type_or_value_is_named_with_what_was_found(refused: Any, key: str, value: object) -> None:
    error = refused(**{key: value})
    assert error.where == f"params.yaml: {key}"
    assert error.expected and error.found == repr(value)


@pytest.mark.parametrize(
    ("key", "reason", "changes"),
    [
        ("sft.microbatch_size", "65 is larger than batch_size 64", {"sft.batch_size": 64, "sft.microbatch_size": 65}),
        ("judge.microbatch_size", "larger than batch_size", {"judge.microbatch_size": 1000}),
        ("reward_model.microbatch_size", "larger than batch_size", {"reward_model.microbatch_size": 1000}),
        (
            "ppo.microbatch_size",
            "65 is larger than a minibatch (256 rollouts_per_iteration / 4 minibatches = 64)",
            {"ppo.rollouts_per_iteration": 256, "ppo.minibatches": 4, "ppo.microbatch_size": 65},
        ),
        (
            "ppo.minibatches",
            "3 must divide rollouts_per_iteration 256",
            {"ppo.rollouts_per_iteration": 256, "ppo.minibatches": 3},
        ),
        ("ppo.minibatches", "512 must divide", {"ppo.rollouts_per_iteration": 256, "ppo.minibatches": 512}),
        (
            "ppo.responses_per_prompt",
            "5 must divide rollouts_per_iteration 256",
            {"ppo.rollouts_per_iteration": 256, "ppo.responses_per_prompt": 5},
        ),
        ("grpo.responses_per_prompt", "at least 2, found 1", {"grpo.responses_per_prompt": 1}),
        ("rloo.responses_per_prompt", "at least 2, found 1", {"rloo.responses_per_prompt": 1}),
        (
            "dpo.batch_size",
            "3 must divide comparisons_per_iteration 512",
            {"dpo.batch_size": 3, "dpo.microbatch_size": 1},
        ),
        (
            "dpo.microbatch_size",
            "64 is larger than batch_size 32",
            {"dpo.batch_size": 32, "dpo.microbatch_size": 64},
        ),
        (
            "dpo.label_smoothing",
            "0.1 belongs to loss sigmoid",
            {"dpo.loss": "ipo", "dpo.label_smoothing": 0.1},
        ),
        (
            "ppo.learning_rate_decay_iterations",
            "5 must be larger than learning_rate_warmup_iterations 5",
            {"ppo.learning_rate_warmup_iterations": 5, "ppo.learning_rate_decay_iterations": 5},
        ),
        (
            "ppo.kl_horizon_rollouts",  # the coefficient could turn negative, see components.core.kl
            "must be more than 0.2 * rollouts_per_iteration",
            {"ppo.rollouts_per_iteration": 256, "ppo.kl_horizon_rollouts": 51.2},
        ),
        *(
            (f"{method}.kl_estimator", reason, {f"{method}.kl_placement": place, f"{method}.kl_estimator": estimator})
            for method in ("ppo", "grpo", "rloo")
            for place, estimator, reason in (
                ("reward", "k2", "became 1.5 in 30 iterations"),
                ("reward", "k3", "became 2.3 in 30 iterations"),
                ("loss", "k1", "became 5.6 in 30 iterations"),
            )
        ),
        (
            "ppo.length_penalty.buffer_tokens",
            "9 is larger than limit_tokens 8",
            {"ppo.length_penalty": {"limit_tokens": 8, "buffer_tokens": 9, "factor": 1.0}},
        ),
        (
            "q_learning.batch_size",
            "30 must divide comparisons_per_iteration 100",
            {"q_learning.comparisons_per_iteration": 100, "q_learning.batch_size": 30},
        ),
        (
            "q_learning.microbatch_size",
            "9 is larger than batch_size 8",
            {"q_learning.batch_size": 8, "q_learning.microbatch_size": 9},
        ),
        ("ppo.reward", "nobody knows the true reward", {"data.rubric": None, "ppo.reward": "rubric"}),
        ("rloo.reward", "nobody knows the true reward", {"data.rubric": None, "rloo.reward": "rubric"}),
        ("language_model.prompt_template", "{prompt} exactly once", {"language_model.prompt_template": "answer:"}),
        (
            "language_model.prompt_template",
            "{prompt} exactly once",
            {"language_model.prompt_template": "{prompt} {prompt}"},
        ),
        (
            "language_model.scratch.hidden_size",
            "must be a multiple of 2 * attention_heads (8)",
            {"language_model.scratch.hidden_size": 92, "language_model.scratch.attention_heads": 4},
        ),
        (
            "data_validation.test_fraction",
            "must leave prompts for training",
            {"data_validation.validation_fraction": 0.5, "data_validation.test_fraction": 0.5},
        ),
        ("reward_model.members", "at least 2 for ensemble mean_minus_std", {"reward_model.ensemble": "mean_minus_std"}),
        ("judge.members", "at least 2 for ensemble mean_minus_std", {"judge.ensemble": "mean_minus_std"}),
        ("judge.seed_offset", "must differ from reward_model.seed_offset", {"judge.seed_offset": 0}),
        ("cycles.1.start", "must be 'artifacts/sft'", {"cycles.1.start": "artifacts/alignment/1"}),
        ("cycles.2.start", "must be 'artifacts/alignment/1'", {"cycles.2.start": "artifacts/sft"}),
        ("cycles", "numbered '1', '2', ... in order; found []", {"cycles": {}}),
        ("cycles", "found ['2']", {"cycles": {"2": {"start": "artifacts/sft"}}}),
        (
            "cycles",
            "found ['2', '1']",
            {"cycles": {"2": {"start": "artifacts/alignment/1"}, "1": {"start": "artifacts/sft"}}},
        ),
    ],
)
def test_a_contradiction_is_named_with_its_reason(refused: Any, key: str, reason: str, changes: Values) -> None:
    error = refused(**changes)
    assert error.where == f"params.yaml: {key}"
    assert reason in error.expected


@pytest.mark.parametrize(("place", "estimator"), [("reward", "k1"), ("loss", "k2"), ("loss", "k3")])
def test_a_kl_term_that_holds_the_policy_is_taken(shipped: Values, place: str, estimator: str) -> None:
    chosen = {"ppo.kl_placement": place, "ppo.kl_estimator": estimator}
    assert parse_params(changed(shipped, chosen), "params.yaml").ppo.kl_placement == place


def test_all_faults_are_told_at_once(refused: Any) -> None:
    error = refused(**{"sft.epochs": 0, "ppo.leraning_rate": 1.0, "judge.epochs": ABSENT, "seed": "x"})
    assert error.where == "params.yaml: seed, sft.epochs, judge.epochs, ppo.leraning_rate"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing") as caught:
        load_params(tmp_path / "params.yaml")
    assert caught.value.where == str(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "content",
    [b"seed: [1\n", b"seed: 1\nseed: 2\n", b"\xff\xfe\x00", b"seed: \x07\n", b"\tseed: 1\n", b"a: &x 1\nb: *y\n"],
    ids=["open bracket", "key twice", "not text", "control character", "tab", "unknown alias"],
)
def test_what_is_not_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="not YAML") as caught:
        load_params(tmp_path / "params.yaml")
    assert caught.value.where == str(tmp_path / "params.yaml")


@pytest.mark.parametrize("content", ["", "null", "[]", "7", "text"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "params.yaml").write_text(content)
    with pytest.raises(ConfigError, match="top level"):
        load_params(tmp_path / "params.yaml")


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    """YAML 1.1 takes 3e-4 for text; DVC reads 1.2, in which it is a number."""
    text = (ROOT / "params.yaml").read_text()
    old = next(line for line in text.splitlines() if line.startswith("  value_learning_rate:"))
    (tmp_path / "params.yaml").write_text(text.replace(old, "  value_learning_rate: 3e-4"))
    assert load_params(tmp_path / "params.yaml").ppo.value_learning_rate == 0.0003


def test_one_typo_is_one_finding_with_its_line_and_the_nearest_key(tmp_path: Path) -> None:
    """Also where it is in values that several methods share."""
    lines = (ROOT / "params.yaml").read_text().splitlines(keepends=True)
    for old, new, named in (
        ("  minibatches: 4\n", "  minibatches: 3\n", "policy_gradient.minibatches"),
        ("  temperature: 1.0\n", "  temperature: 0.0\n", "policy_gradient.temperature"),
        ("  clip_range_low: 0.2\n", "", "policy_gradient.clip_range_low"),
    ):
        at = lines.index(old, lines.index("policy_gradient:\n"))
        (tmp_path / "params.yaml").write_text("".join([*lines[:at], new, *lines[at + 1 :]]))
        with pytest.raises(ConfigError) as caught:
            load_params(tmp_path / "params.yaml")
        line = f" (line {at + 1})" if new else ""
        assert caught.value.where == f"{tmp_path}/params.yaml: {named}{line}"
    number = lines.index("  iterations_per_cycle: 5\n")
    lines.insert(number, "  leraning_rate: 1.0\n")
    (tmp_path / "params.yaml").write_text("".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_params(tmp_path / "params.yaml")
    assert caught.value.where == f"{tmp_path}/params.yaml: policy_gradient.leraning_rate (line {number + 1})"
    assert caught.value.expected == "policy_gradient.learning_rate, the nearest key"
    assert caught.value.found == "policy_gradient.leraning_rate"


@pytest.mark.parametrize("method", ["grpo", "rloo"])
@pytest.mark.parametrize("key", ["gamma", "gae_lambda", "value_learning_rate", "value_warmup_iterations"])
def test_a_key_of_the_critic_is_refused_where_there_is_none(refused: Any, method: str, key: str) -> None:
    assert refused(**{f"{method}.{key}": 1}).where == f"params.yaml: {method}.{key}"


def test_a_method_has_the_shared_values_but_for_its_own(shipped: Values) -> None:
    params = parse_params(changed(shipped, {"policy_gradient.epochs": 7, "grpo.epochs": 9}), "params.yaml")
    assert (params.ppo.epochs, params.grpo.epochs, params.rloo.epochs) == (7, 9, 7)
    assert "policy_gradient" not in params.values()  # what runs has them already
