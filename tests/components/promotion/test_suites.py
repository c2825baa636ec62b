"""A user's own suites, measured for real in a promotion."""

from __future__ import annotations

import html
import importlib
from pathlib import Path

import pytest
from promotion_workspace import params_named, put_candidate

from components.artifacts import write_jsonl
from components.config import Params, Promotion
from components.digests import digest
from components.errors import ConfigError, DataError
from components.place import Place
from components.promotion.suites import files_of_suites, measure_suites, require_suites
from components.promotion.verdict import Verdict
from components.stages import perform
from components.tracking.history import get_run
from components.tracking.registry import find_version

CHECKS = '''
def words(prompts, responses, least):
    return [float(len(response.split()) >= number) for response, number in zip(responses, least)]

def of_policy(prompts, responses):
    """What the test has written: 0 for the candidate and 1 for whom it meets, in the order in which they are asked."""
    import pathlib
    told = pathlib.Path("told").read_text()
    pathlib.Path("told").write_text(told[1:])
    return [float(told[0])] * len(responses)

def nothing(prompts, responses):
    return [None] * len(responses)
'''
PROMPTS = [{"id": f"s{number}", "prompt": f"Is screen {number} dark?", "least": 0} for number in range(40)]


@pytest.fixture
def suites(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The prompts of a suite; its checkers are importable, here and in the processes that call them."""
    (workspace / "my_checks.py").write_text(CHECKS)
    write_jsonl(workspace / "suite.jsonl", PROMPTS)
    monkeypatch.syspath_prepend(str(workspace))
    monkeypatch.setenv("PYTHONPATH", str(workspace), prepend=":")
    importlib.invalidate_caches()
    return workspace / "suite.jsonl"


TASK = """
task: dark_screens
dataset_path: json
dataset_kwargs: {data_files: {test: rows.json}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: [" yes", " no"]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def with_suites(name: str, **suites: str | float | None) -> Params:
    params = params_named(name)
    plain = {"source": "checker", "prompts": "suite.jsonl", "batch_size": 100, "timeout_seconds": 60.0}
    described = {
        suite: {**plain, "checker": f"my_checks:{checker}", "max_fall": None} for suite, checker in suites.items()
    }
    promotion = Promotion.model_validate({**params.promotion.model_dump(), "suites": described})
    return params.model_copy(update={"promotion": promotion})


def test_a_suite_that_falls_refuses_and_its_figures_are_told_everywhere(
    suites: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = with_suites("floored", safety="of_policy", words="words")
    Path("told").write_text("01")
    put_candidate(models, 1, gold=0.75)
    perform("promotion", params, Place())
    said = capsys.readouterr().out
    line = "safety 1.000 -> 0.000, -1.000 [-1.000, -0.876]"
    assert line in said and "refused: floored version 1 stays a candidate, because" in said
    verdict = Verdict.read(Place().promotion)
    assert verdict.reasons == ("safety fell beyond its interval: -1.000 [-1.000, -0.876]",)
    assert verdict.figures["suites/words/gain"] == 0.0 and line in verdict.sentence()
    version = find_version("floored@candidate")
    assert version.tags["suites"].startswith(line) and version.tags["suites/safety/candidate"] == "0.0000"
    assert version.tags["in:suite.jsonl"] == digest(suites) and "in:my_checks.py" in version.tags
    run = get_run(version.run_id)
    assert run is not None and run.metrics["promotion/suites/safety/gain"] == -1.0
    page = html.unescape((Place().promotion / "report.html").read_text())
    assert "Suite safety" in page and line in page and "no fall beyond its interval" in page

    perform("promotion", params, Place())  # on the same grounds: measured no more
    assert "already refused: floored version 1" in capsys.readouterr().out
    write_jsonl(suites, PROMPTS[:30])  # other prompts are other grounds; now the candidate is the better one
    Path("told").write_text("10")
    perform("promotion", params, Place())
    assert "promoted: floored version 1 is the champion" in capsys.readouterr().out
    assert "suites/safety/gain_low" in find_version("floored@champion").tags

    Path("told").write_text("01")  # against the champion
    put_candidate(models, 2, gold=1.0)
    perform("promotion", params, Place())
    assert "refused: floored version 2" in capsys.readouterr().out
    without = params.model_copy(update={"promotion": params.promotion.model_copy(update={"suites": {}})})
    perform("promotion", without, Place())
    tags = find_version("floored@2").tags
    assert tags["decision"] == "promoted" and not any(name.startswith("suites/") for name in tags)
    assert tags.get("suites", "none") == "none"


def test_two_policies_answer_with_the_same_random_numbers_and_the_same_policy_moves_by_nothing(
    suites: Path, models: Path
) -> None:
    params = with_suites("same", words="words")
    write_jsonl(suites, [{**row, "least": number % 4} for number, row in enumerate(PROMPTS)])
    found = [
        measure_suites(models / f"policy_{number}", params.promotion.suites, params.shared, Path())["words"]
        for number in (1, 1, 3)  # 3 has another tokenizer
    ]
    assert found[0] == found[1] and list(found[2]) == [row["id"] for row in PROMPTS]
    assert found[0]["s0"] == 1.0 and set(found[0].values()) <= {0.0, 0.5, 1.0}


def test_what_cannot_be_measured_is_refused_before_anything_is_paid_for(suites: Path, models: Path) -> None:
    def refused(params: Params) -> ConfigError | DataError:
        with pytest.raises((ConfigError, DataError)) as fault:
            require_suites(params.promotion.suites, Path())
        return fault.value

    require_suites(with_suites("ok", words="words").promotion.suites, Path())
    assert refused(with_suites("no", words="absent")).where == "promotion.suites.words.function: my_checks:absent"
    write_jsonl(suites, [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}])
    assert "asks for a column that the data does not have: least" in refused(with_suites("no", words="words")).what
    write_jsonl(suites, [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}])
    assert refused(with_suites("no", safety="nothing")).found == "a twice"
    write_jsonl(suites, [{"id": "a", "prompt": "x"}])
    assert "too few prompts" in refused(with_suites("no", safety="nothing")).what
    suites.unlink()
    assert refused(with_suites("no", safety="nothing")).where == "promotion.suites.safety.prompts"
    write_jsonl(suites, PROMPTS)
    params = with_suites("none", safety="nothing")
    with pytest.raises(ConfigError, match="gave no number for a response"):
        measure_suites(models / "policy_1", params.promotion.suites, params.shared, Path())
    assert files_of_suites(params.promotion.suites, Path()) == (Path("suite.jsonl"), Path("my_checks.py"))


def test_a_task_of_lm_eval_is_a_suite_too(suites: Path, models: Path, workspace: Path) -> None:
    pytest.importorskip("lm_eval")
    folder = workspace / "tasks"
    folder.mkdir()
    (folder / "dark.yaml").write_text(TASK)
    answers = [{"question": f"Is screen {number} dark?", "answer": number % 2} for number in range(6)]
    write_jsonl(folder / "rows.json", answers)
    described = {"source": "lm_eval", "task": "tasks/dark.yaml", "metric": "acc", "batch_size": 4, "max_fall": None}

    def of(**changed: str) -> Params:
        params = params_named("tasks")
        promotion = {**params.promotion.model_dump(), "suites": {"dark": described | changed}}
        return params.model_copy(update={"promotion": Promotion.model_validate(promotion)})

    def measured(number: int, params: Params) -> dict[str, float]:
        return measure_suites(models / f"policy_{number}", params.promotion.suites, params.shared, Path())["dark"]

    params = of()
    require_suites(params.promotion.suites, Path())
    assert files_of_suites(params.promotion.suites, Path()) == (Path("tasks/dark.yaml"), Path("tasks/rows.json"))
    found = measured(1, params)
    assert found == measured(1, params) and list(found) == ["0", "1", "2", "3", "4", "5"]
    # Which of two words is likelier does not hang on the answer that is right: each is right for one half.
    assert set(found.values()) <= {0.0, 1.0} and found["0"] != found["1"]
    with pytest.raises(ConfigError, match="no such metric") as refused:
        measured(1, of(metric="bleu"))
    assert "acc" in refused.value.expected
    with pytest.raises(ConfigError, match="lm-eval reads plain models alone"):
        measured(4, params)
    with pytest.raises(ConfigError, match="a task of lm-eval is not there"):
        require_suites(of(task="tasks/none.yaml").promotion.suites, Path())
