"""Rounds: what is asked, added and gone on from, and that a killed command goes on to the same bytes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_world
from ruamel.yaml import YAML
from test_data_add import dvc, git, made, project  # noqa: F401
from tiny_project import longest_s

from components.artifacts import read_json, read_jsonl
from components.config import load_params
from components.errors import ConfigError, DataError
from components.interface.label.labels import Labels
from components.interface.label.pairs import Answer, Policy, Queue, pair_of
from components.interface.label.simulated import judge_all, load_annotators
from components.interface.rounds import Round, rounds_cells, write_tables
from flows.iterate import add, begin, collect
from flows.workspace import whole_repository

ROOT = Path(__file__).parents[2]
SFT = Policy("artifacts/sft/policy", "abcd")


def queue_of(*texts: tuple[str, str], prompt: str = "My printer shows a red light. What can I do?") -> Queue:
    answers = [tuple(Answer(SFT, text, 0.0, 0.0) for text in both) for both in texts]
    pairs = tuple(pair_of(f"{prompt} {n}", None, *both) for n, both in enumerate(answers))
    return Queue((SFT,), len(pairs), pairs)


@pytest.fixture
def first(project: Path) -> Iterator[Round]:  # noqa: F811
    """A round that has begun, of a project with 60 comparisons, and whose queue is sampled."""
    this = Round(project / "rounds" / "1")
    this.note(present="sft", comparisons=3, annotators="people")
    queue_of(("a", "b"), ("c", "d"), ("e", "f")).write(this.queue)
    with whole_repository(project):
        yield this


def test_a_round_waits_for_people_and_adds_what_they_said_once(first: Round, project: Path) -> None:  # noqa: F811
    pairs = Queue.read(first.queue).pairs
    labels = Labels(first.labels)
    labels.add(pairs[0], "ann", "A")
    labels.add(pairs[1], "ann", "tie")
    with pytest.raises(DataError, match="round 1 waits for people") as refusal:
        collect(first, project)
    assert refusal.value.found == "2 of them" and str(first.labels) in refusal.value.do
    labels.add(pairs[2], "ann", "B")
    collect(first, project)
    add(first, project)
    rows = read_jsonl(project / "data" / "rounds-1.jsonl")
    preferred = [pair.shown_to("ann")[side].text for pair, side in ((pairs[0], 0), (pairs[2], 1))]
    assert [(row["prompt"], row["chosen"]) for row in rows] == list(
        zip((pairs[0].prompt, pairs[2].prompt), preferred, strict=True)
    )
    assert first.known["rows"] == 2 and first.known["digest"] == "abcd"
    assert git("log", "-1", "--format=%s") == "2 more comparisons of answers of sft (rounds/1)"
    head = git("rev-parse", "HEAD")

    killed_before_its_note = Round(first.folder)
    del killed_before_its_note.known["rows"]
    add(killed_before_its_note, project)
    assert (git("rev-parse", "HEAD"), Round(first.folder).known["rows"]) == (head, 2)
    assert read_jsonl(project / "data" / "rounds-1.jsonl") == rows


def test_a_round_goes_on_as_it_began(first: Round, project: Path) -> None:  # noqa: F811
    begin(first, project, 3, "people")
    with pytest.raises(ConfigError, match="round 1 has begun otherwise") as refusal:
        begin(first, project, 4, "people")
    assert refusal.value.expected == "--comparisons 3 --annotators people"


def test_a_round_may_go_on_from_a_refused_candidate(first: Round, project: Path) -> None:  # noqa: F811
    first.note(model="policy@4", decision="refused")
    second, third = (Round(first.folder.parent / number) for number in ("2", "3"))
    begin(second, project, 3, "people", before=first)
    begin(third, project, 3, "people")
    assert (second.known["present"], third.known["present"]) == ("policy@4", "sft")
    begin(second, project, 3, "people")  # what a round has begun with stays
    assert second.known["present"] == "policy@4"


def test_simulated_annotators_judge_as_the_world_does(tmp_path: Path) -> None:
    """A pair whose one answer has the right remedy and whose other is rude is preferred by next to everybody."""
    right = "Please press the reset button. It usually works."
    rude = "That is a stupid question."
    queue = queue_of(*[(right, rude)] * 2, *[(rude, right)] * 38, prompt="My printer shows a red light.")
    annotators = load_annotators(load_params(ROOT / "params.yaml"))
    assert judge_all(queue, annotators, 1, tmp_path / "labels.jsonl") == 40
    rows = read_jsonl(tmp_path / "labels.jsonl")
    assert [row["pair"] for row in rows] == [pair.id for pair in queue.pairs]
    assert all("time" not in row for row in rows) and len({row["annotator"] for row in rows}) > 3
    chosen = [row["shown"]["AB".index(row["label"])]["text"] for row in rows]
    assert chosen.count(right) >= 34  # they err in 2 to 7 of 100
    assert {row["label"] for row in rows} == {"A", "B"}
    judge_all(queue, annotators, 1, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "labels.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (None, "null"),
        ("components.worlds.nowhere:judge", "No module named"),
        ("components.worlds.helpdesk.annotators:nobody", "nobody"),
        ("components.worlds.helpdesk.rubric:score", "too many positional"),
    ],
)
def test_annotators_that_cannot_be_used_are_refused(named: str | None, found: str, tmp_path: Path) -> None:
    content = YAML().load(ROOT / "params.yaml")
    content["orchestration"]["simulated_annotators"] = named
    YAML().dump(content, tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="simulated annotators") as refusal:
        load_annotators(load_params(tmp_path / "params.yaml"))
    assert found in refusal.value.found


def test_the_table_says_what_became_of_each_round(tmp_path: Path) -> None:
    def figure(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}

    sides = {"gold": figure(0.5), "judge": figure(1.0), "kl": figure(2.0)}
    evaluation = {"sft": sides, "candidate": sides | {"gold": figure(0.7)}, "win_rate": figure(0.6)}
    this = Round(tmp_path / "1")
    this.note(present="sft", rows=7, data="0123456789.dir", evaluation=evaluation)
    this.note(model="policy@1", policy="fedcba9876")
    assert not this.is_done
    this.note(decision="promoted", run_id="r")
    assert Round(tmp_path / "1").is_done
    assert rounds_cells([this])[1] == [
        *("1", "sft", "7", "01234567", "policy@1", "fedcba98", "0.500 [0.400, 0.600]", "0.700 [0.600, 0.800]"),
        *("1.000 [0.900, 1.100]", "2.00 [1.90, 2.10]", "0.600 [0.500, 0.700]", "promoted"),
    ]
    values, page = write_tables([this], tmp_path)
    assert read_json(values)[0]["round"] == 1 and "| 1 | sft | 7 | 01234567 |" in page.read_text()


def test_a_killed_command_goes_on_to_the_same_bytes(tmp_path: Path, prefect_database: Path) -> None:
    """Two rounds of whole pipelines; the second one is killed once its comparisons are committed, and goes on."""
    other, begun, whole = (tmp_path / name for name in ("project", "begun", "whole"))
    other.mkdir()  # both are made in one folder, one after the other: a tracking store stays where it was made
    small_world.make_world(other, {"cycles": {"1": {"start": "artifacts/sft"}}, "sft.epochs": 20})
    for key, value in (("user.name", "Test"), ("user.email", "test@localhost")):
        subprocess.run(["git", "config", key, value], cwd=other, check=True)
    for home in ("home", "other-home"):
        (tmp_path / home).mkdir()
        shutil.copy(prefect_database, tmp_path / home / "prefect.db")
    assert start(other, tmp_path / "home", 1).wait() == 0, words(other)
    if Round(other / "rounds" / "1").known["decision"] != "promoted":  # so that the second one begins with it
        promote = [sys.executable, "-m", "flows.cli", "promote", "1", "--reason", "test"]
        subprocess.run(promote, cwd=other, env=small_world.environment(tmp_path / "home"), check=True)
    shutil.copytree(other, begun, symlinks=True)
    assert start(other, tmp_path / "home", 2).wait() == 0, words(other)
    other.rename(whole)
    begun.rename(other)

    killed = start(other, tmp_path / "other-home", 2)
    deadline = time.monotonic() + 20 * longest_s()
    while "rows" not in Round(other / "rounds" / "2").known:
        assert killed.poll() is None and time.monotonic() < deadline, words(other)
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not Round(other / "rounds" / "2").is_done
    assert start(other, tmp_path / "other-home", 2).wait() == 0, words(other)

    for file in ("rounds/2/queue.json", "rounds/2/labels.jsonl", "data/rounds-2.jsonl", "data.dvc"):
        assert (other / file).read_bytes() == (whole / file).read_bytes(), file
    told = [read_json(folder / "rounds" / "rounds.json") for folder in (whole, other)]
    for both in zip(*told, strict=True):
        one, same = ({key: each[key] for key in ("present", "rows", "data", "policy", "evaluation")} for each in both)
        assert one == same
    assert [each["present"] for each in told[0]] == ["sft", "policy@1"]
    assert told[0][1]["digest"] == told[0][0]["policy"]
    labels = read_jsonl(whole / "rounds" / "2" / "labels.jsonl")
    preferred = [row["shown"]["AB".index(row["label"])]["text"] for row in labels]
    assert [row["chosen"] for row in read_jsonl(whole / "data" / "rounds-2.jsonl")] == preferred
    assert subprocess.check_output(["git", "log", "--format=%s", "-2"], cwd=other, text=True).splitlines() == [
        f"{each['rows']} more comparisons of answers of {each['present']} (rounds/{each['round']})"
        for each in reversed(told[0])
    ]


def start(folder: Path, home: Path, rounds: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows.cli", "iterate", "--annotators", "simulated", "--comparisons", "40"]
    environment = small_world.environment(home)
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--rounds", str(rounds)], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def words(folder: Path) -> str:
    return (folder.parent / f"{folder.name}.log").read_text(errors="replace")[-4000:]
