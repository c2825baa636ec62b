"""The file of labels: nothing acknowledged is lost, nothing is doubled; the order of pairs; agreement by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.errors import ArtifactError, DataError
from components.interface.label.labels import Labels, Row, Verdict, agreement
from components.interface.label.pairs import Answer, Pair, Policy, Queue, in_order, pair_of

ONE, TWO = Policy("one", "1"), Policy("two", "2")
ROOT = Path(__file__).resolve().parents[3]
# Labels pair after pair for a number of annotators, and says of each that it is kept.
LABELLER = """
import sys
from pathlib import Path
from test_labels import pair
from components.interface.label.labels import Labels
labels = Labels(Path(sys.argv[1]))
for number in range(100_000):
    if labels.add(pair(number), "Ann", "A", "a reason " * 50):
        print(number, flush=True)
"""


def pair(number: int, reward: float = 0.0, judge: float = 0.0) -> Pair:
    first, second = Answer(ONE, "yes", reward, judge), Answer(TWO, "no", 0.0, 0.0)
    return pair_of(f"ask {number}", None, first, second)


def test_what_was_acknowledged_outlives_kill_9_and_nothing_is_doubled(tmp_path: Path) -> None:
    file, told = tmp_path / "labels.jsonl", []
    path = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    for _ in range(3):
        command = [sys.executable, "-c", LABELLER, str(file)]
        with subprocess.Popen(command, env=path, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told += [int(process.stdout.readline()) for _ in range(20)]
            process.kill()
            told += map(int, process.stdout.read().split())
    kept = [row["prompt"] for row in Labels(file).all()]
    assert len(kept) == len(set(kept)) == len(file.read_text().splitlines())
    assert set(kept) >= {f"ask {number}" for number in told}
    assert len(told) == len(set(told)) >= 60


def test_two_annotators_and_two_servers_write_at_once(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    servers = [Labels(file), Labels(file)]

    def judge(number: int) -> bool:
        return servers[number % 2].add(pair(number // 4), ("Ann", "Bob")[number // 2 % 2], "A")

    with ThreadPoolExecutor(8) as pool:
        fresh = sum(pool.map(judge, range(200)))  # each annotator judges each of 50 pairs by way of both servers
    assert fresh == 100
    assert len(file.read_text().splitlines()) == len(servers[0].all()) == len(servers[1].all()) == 100


def test_the_first_label_stays_and_a_torn_line_goes(tmp_path: Path) -> None:
    file = tmp_path / "new" / "labels.jsonl"
    labels = Labels(file)
    assert labels.add(pair(1), "Ann", "A")
    assert not labels.add(pair(1), "Ann", "B")
    with file.open("a") as torn:
        torn.write('{"pair": "')
    assert Labels(file).add(pair(2), "Ann", "skip")
    assert [json.loads(line)["label"] for line in file.read_text().splitlines()] == ["A", "skip"]
    file.write_text('{"prompt": "Why?"}\n')
    with pytest.raises(DataError, match="a line is no label"):
        Labels(file)


def test_pairs_on_which_the_scorers_disagree_come_first() -> None:
    agree, close, disagree, more = pair(1, 2.0, 2.0), pair(2, 0.1, 0.1), pair(3, 1.0, -1.0), pair(4, -2.0, 1.0)
    alike = pair_of("ask", None, Answer(ONE, "yes", 1.0, 1.0), Answer(TWO, "yes ", -1.0, 1.0))
    assert in_order([agree, close, alike, disagree, more]) == (more, disagree, close, agree)


def test_who_is_a_is_random_and_stays() -> None:
    shown = [pair(number).shown_to(who)[0].text for number in range(200) for who in ("Ann", "Bob")]
    assert 140 < shown.count("yes") < 260  # 200 expected of a fair coin; the limits are 6 standard deviations away
    assert shown[::2] != shown[1::2]
    assert shown == [pair(number).shown_to(who)[0].text for number in range(200) for who in ("Ann", "Bob")]


def test_agreement_is_of_answers_and_not_of_sides() -> None:
    def label(name: str, verdict: Verdict, first: str, second: str) -> Row:
        return {"pair": name, "label": verdict, "shown": [{"text": first}, {"text": second}]}

    rows = [
        *(label("1", "A", "yes", "no"), label("1", "B", "no", "yes")),  # equal: yes
        *(label("2", "A", "yes", "no"), label("2", "A", "no", "yes")),  # not
        *(label("3", "tie", "yes", "no"), label("3", "tie", "no", "yes"), label("3", "A", "yes", "no")),  # one of three
        *(label("4", "A", "yes", "no"), label("4", "skip", "yes", "no")),  # nothing to compare
    ]
    assert agreement(rows) == (2, 5)
    assert str(agreement(rows)) == "40% of 5 times that two annotators judged one pair"
    assert str(agreement(rows[:1])) == "no pair has been judged by two annotators yet"


def test_a_queue_is_read_as_it_was_written(tmp_path: Path) -> None:
    talk = pair_of("User: a", [{"role": "user", "content": "a"}], *pair(1).answers)
    queue = Queue((ONE, TWO), 7, (talk, pair(1, 0.5, -0.25)))
    queue.write(tmp_path / "queue.json")
    assert Queue.read(tmp_path / "queue.json") == queue
    (tmp_path / "queue.json").write_text('{"pairs": [{"id": 1}]}')
    with pytest.raises(ArtifactError, match="no queue"):
        Queue.read(tmp_path / "queue.json")
