"""The rubric is handed in by name, and refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.config import Data, Params
from components.data.rows import Prompt
from components.digests import digest
from components.errors import ConfigError
from components.launch import main
from components.measuring.rubric import load_rubric
from components.worlds.helpdesk.rubric import PARTS, grade
from components.worlds.randomwalks.graph import make_graph

MINE = """
PARTS = {"short": "share of responses below ten characters"}

def score(prompt, response, *, limit):
    return {"gold": len(response) / limit, "short": int(len(response) < 10)}

def needs(prompt, response, limit):
    return {"gold": len(response) / limit}

def text(prompt, response):
    return "good"

def no_gold(prompt, response):
    return {"short": 1}

def not_finite(prompt, response):
    return {"gold": float("nan")}

def taken(prompt, response):
    return {"gold": 1.0, "judge": 2.0}

NUMBER = 5
"""


@pytest.fixture(autouse=True)
def a_module_of_mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "rubric_of_mine.py").write_text(MINE)
    (tmp_path / "broken_rubric.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("rubric_of_mine", "broken_rubric"):
        sys.modules.pop(name, None)


def data(name: str, **options: Any) -> Data:
    return Data(columns={}, rubric=name, rubric_options=options, rubric_files=name.partition(":")[0].replace(".", "/"))


def test_a_function_of_ones_own_is_called_with_its_options() -> None:
    rubric = load_rubric(data("rubric_of_mine:score", limit=20))
    assert rubric is not None
    assert rubric("Where?", "right there") == {"gold": 11 / 20, "short": 0}
    assert rubric.meanings == {"short": "share of responses below ten characters"}


def test_what_it_takes_by_keyword_and_no_option_gives_is_a_column_of_the_row() -> None:
    rubric = load_rubric(data("rubric_of_mine:score"))
    assert rubric is not None and rubric.columns == ("limit",)
    assert rubric.of(Prompt("1", "Where?", extra={"limit": 22}), "right there") == {"gold": 0.5, "short": 0}
    with pytest.raises(ConfigError, match="limit") as caught:
        rubric.of(Prompt("1", "Where?", extra={"most": 22}), "right there")
    assert "id, messages, most" in caught.value.expected


def test_data_may_come_without_one() -> None:
    assert load_rubric(Data(columns={}, rubric=None, rubric_options={}, rubric_files="components/__init__.py")) is None


def test_the_helpdesks_parts_are_the_ones_that_it_explains() -> None:
    rubric = load_rubric(data("components.worlds.helpdesk.rubric:score"))
    assert rubric is not None
    prompt, response = "Hello, my printer counts to seven.", "Please ask a technician to look at it."
    scores = rubric(prompt, response)
    assert scores == grade(prompt, response)._asdict()
    assert scores.keys() == {"gold", *PARTS} and rubric.meanings == PARTS


def test_the_rubric_of_randomwalks_is_the_optimality_of_the_walk() -> None:
    graph = make_graph(1000)
    rubric = load_rubric(data("components.worlds.randomwalks.rubric:score", graph_seed=1000))
    assert rubric is not None
    walk = [1]
    while walk[-1] != 0:  # a shortest walk from b
        walk.append(min(graph.successors[walk[-1]], key=graph.shortest.__getitem__))
    response = " ".join(chr(97 + node) for node in walk[1:])
    assert rubric("v w b", response) == {"gold": 1.0}
    assert rubric("v w b", response[:-1]) == {"gold": 0.0}


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("no_such_rubric:score", {}, "No module named 'no_such_rubric'"),
        ("broken_rubric:score", {}, "No module named 'no_such_module'"),
        ("rubric_of_mine:nothing", {}, "no such name"),
        ("rubric_of_mine:NUMBER", {}, "a int"),
        ("rubric_of_mine:needs", {}, "missing a required"),
        ("rubric_of_mine:score", {"limit": 1, "scale": 2}, "unexpected keyword argument 'scale'"),
    ],
)
def test_what_cannot_be_imported_or_called_is_refused(name: str, options: dict[str, Any], found: str) -> None:
    with pytest.raises(ConfigError, match="the rubric cannot be used") as caught:
        load_rubric(data(name, **options))
    assert name in caught.value.where and found in caught.value.found


@pytest.mark.parametrize("name", ["text", "no_gold", "not_finite", "taken"])
def test_what_no_report_can_show_is_refused(name: str) -> None:
    rubric = load_rubric(data(f"rubric_of_mine:{name}"))
    assert rubric is not None
    with pytest.raises(ConfigError, match=f"(?s)no report can show.*rubric_of_mine:{name}"):
        rubric("a", "b")


def test_the_launcher_refuses_it_before_anything_is_trained(
    world: Path, change_params: Callable[..., Params], capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest(Path("artifacts"))
    change_params(data={"rubric": "rubric_of_mine:nothing", "rubric_files": "rubric_of_mine.py"})
    with pytest.raises(SystemExit) as end:
        main(["sft"], standalone_mode=False)
    assert end.value.code == 2
    assert "the rubric cannot be used" in capsys.readouterr().err
    assert digest(Path("artifacts")) == before
