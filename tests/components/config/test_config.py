"""Every shipped params file loads; what is no params file, or has other keys, is refused at load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from config_changes import ABSENT, Values, changed
from pydantic import ValidationError

from components import config
from components.config import Section, load_params, parse_params
from components.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = [ROOT / "params.yaml", *sorted(ROOT.glob("infra/presets/*.yaml")), *sorted(ROOT.glob("tests/e2e/*.yaml"))]


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
    others = dict.fromkeys(("ppo", "grpo", "rloo", "online_dpo", "q_learning", "best_of_n"), ABSENT)
    params = parse_params(changed(shipped, {"method": "dpo"} | others), "params.yaml")
    assert params.alignment is params.dpo and params.ppo is None
    assert {"ppo", "dpo"} & params.values().keys() == {"dpo"}
    error = refused(**{"method": "rloo", "rloo": ABSENT})
    assert error.where == "params.yaml: rloo" and "rloo is the chosen method" in error.expected


def test_all_faults_are_told_at_once(refused: Any) -> None:
    error = refused(**{"sft.epochs": -1, "ppo.leraning_rate": 1.0, "judge.epochs": ABSENT, "seed": "x"})
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
    assert caught.value.expected == "a key that exists; did you mean policy_gradient.learning_rate?"
    assert caught.value.found == "policy_gradient.leraning_rate"


def test_what_sections_merge_from_one_place_is_told_once_and_there(tmp_path: Path) -> None:
    shared = "shared: &shared\n  epochs: high\n  epohcs: 3\n"
    text = (ROOT / "params.yaml").read_text()
    for section in ("reward_model", "judge"):
        head = f"\n{section}:\n"
        before, after = text.split(head)
        text = before + head + "  <<: *shared\n" + re.sub(r"  epochs: \d\n", "", after, count=1)
    (tmp_path / "params.yaml").write_text(shared + text)
    with pytest.raises(ConfigError) as caught:
        load_params(tmp_path / "params.yaml")
    told = "reward_model.epochs (line 2), reward_model.epohcs (line 3), shared (line 1)"
    assert caught.value.where == f"{tmp_path}/params.yaml: {told}"
    assert caught.value.found == (
        "reward_model.epochs: 'high'; reward_model.epohcs: reward_model.epohcs; shared: shared"
    )
    assert "reward_model.epochs: a valid integer; reward_model.epohcs: a key that exists;" in caught.value.expected


def test_a_value_of_a_wrong_type_that_methods_share_is_told_once(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    line = next(n for n, part in enumerate(text.splitlines(), 1) if part == "  clip_range_low: 0.2")
    (tmp_path / "params.yaml").write_text(text.replace("  clip_range_low: 0.2\n", "  clip_range_low: high\n"))
    with pytest.raises(ConfigError) as caught:
        load_params(tmp_path / "params.yaml")
    assert caught.value.where == f"{tmp_path}/params.yaml: policy_gradient.clip_range_low (line {line})"
    assert (caught.value.expected, caught.value.found) == ("a valid number", "'high'")


def test_changes_are_put_into_what_is_read() -> None:
    """A method may be given a value of its own for what policy_gradient says."""
    params = load_params(ROOT / "params.yaml", {"seed": 7, "ppo.learning_rate": 0.5})
    assert (params.seed, params.ppo.learning_rate) == (7, 0.5)
    assert params.grpo.learning_rate != 0.5
    for key, meant in (("ppo.learnin_rate", "ppo.learning_rate"), ("seed.more", ""), ("sead", "seed")):
        with pytest.raises(ConfigError) as caught:
            load_params(ROOT / "params.yaml", {key: 1})
        assert caught.value.where.endswith(f": {key}") and caught.value.found == key
        assert f"did you mean {meant}" in caught.value.expected or not meant


def test_a_method_has_the_shared_values_but_for_its_own(shipped: Values) -> None:
    params = parse_params(changed(shipped, {"policy_gradient.epochs": 7, "grpo.epochs": 9}), "params.yaml")
    assert (params.ppo.epochs, params.grpo.epochs, params.rloo.epochs) == (7, 9, 7)
    assert "policy_gradient" not in params.values()  # what runs has them already


def test_an_option_of_another_method_is_an_unknown_key_here(refused: Any) -> None:
    """Scores that are all alike still teach a value model, and only GRPO divides by the group's spread."""
    for key in ("ppo.dynamic_sampling_rounds", "ppo.advantage_scale", "rloo.advantage_scale", "grpo.value_gae_lambda"):
        error = refused(**{key: 1})
        assert error.where == f"params.yaml: {key}" and error.found == key


def test_every_policy_loss_loads_with_its_keys(shipped: Values) -> None:
    gspo = {"policy_loss": "gspo", "loss_aggregation": "sequence_mean", "clip_range_low": 3e-4, "clip_range_high": 4e-4}
    cispo = {"policy_loss": "cispo", "clip_range_low": None, "clip_range_high": 4.0}
    for keys in (gspo, cispo, cispo | {"loss_aggregation": "sum_over_limit", "clip_range_low": 0.9}):
        changes = {f"policy_gradient.{key}": value for key, value in keys.items()}
        params = parse_params(changed(shipped, changes), "params.yaml")
        for section in (params.ppo, params.grpo, params.rloo):
            assert {key: getattr(section, key) for key in keys} == keys
