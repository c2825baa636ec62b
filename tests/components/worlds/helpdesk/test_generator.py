"""What the generator writes: counts, shares, ranges, disagreement, planted faults, determinism."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from random import Random
from statistics import mean

import pytest

from components.artifacts import write_jsonl
from components.worlds.helpdesk import world
from components.worlds.helpdesk.annotators import ANNOTATORS
from components.worlds.helpdesk.generator import Row, generate, main
from components.worlds.helpdesk.pairs import corrupt, is_broken
from components.worlds.helpdesk.prompts import bare, make_prompts
from components.worlds.helpdesk.rubric import grade, read_prompt, read_response

SPLITS = {"train": 1000, "validation": 200, "test": 300}


@pytest.fixture(scope="module")
def files() -> dict[str, list[Row]]:
    return generate(7)


@pytest.fixture(scope="module")
def prompts(files: dict[str, list[Row]]) -> list[Row]:
    return files["prompts.jsonl"]


@pytest.fixture(scope="module")
def demonstrations(files: dict[str, list[Row]]) -> list[Row]:
    return files["demonstrations.jsonl"]


@pytest.fixture(scope="module")
def comparisons(files: dict[str, list[Row]]) -> list[Row]:
    return files["comparisons.jsonl"]


def _sound(comparisons: list[Row]) -> list[Row]:
    return [row for row in comparisons if row["rejected"] and row["chosen"] != row["rejected"]]


def test_splits_are_disjoint_and_of_their_sizes(prompts: list[Row]) -> None:
    assert Counter(row["split"] for row in prompts) == SPLITS
    assert len({row["prompt"] for row in prompts}) == len(prompts)
    assert len({row["id"] for row in prompts}) == len(prompts)


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_the_shares_of_the_kinds(prompts: list[Row], split: str) -> None:
    kinds = Counter(row["kind"] for row in prompts if row["split"] == split)
    shares = {kind: count / SPLITS[split] for kind, count in kinds.items()}
    assert shares == pytest.approx({"known": 0.55, "unknown": 0.25, "harmful": 0.20}, abs=1e-3)


def test_the_rubric_reads_the_kind_that_the_generator_meant(prompts: list[Row]) -> None:
    assert all(read_prompt(row["prompt"]).kind == row["kind"] for row in prompts)


@pytest.mark.parametrize("split", SPLITS)
def test_every_device_and_fault_is_asked_about(prompts: list[Row], split: str) -> None:
    texts = [bare(row["prompt"]).replace("doesnt", "does not") for row in prompts if row["split"] == split]
    for device, fault in world.KNOWN_PAIRS:
        assert any(f" {device} {fault} " in text for text in texts), (device, fault)


def test_text_is_english_as_it_is_typed_and_the_vocabulary_small(files: dict[str, list[Row]]) -> None:
    prompts = [row["prompt"] for rows in files.values() for row in rows]
    responses = [row["response"] for row in files["demonstrations.jsonl"]]
    responses += [row[key] for row in files["comparisons.jsonl"] for key in ("chosen", "rejected")]
    word = r"([A-Z]?[a-z]+('[a-z]+)?|I)"
    assert all(re.fullmatch(rf"({word}[.,?!]? )*{word}[.?!]?", text) for text in prompts)
    assert all(re.fullmatch(rf"(({word}[.,:]? )*{word}[.,:]?)?", text) for text in responses)
    assert len({word for text in prompts + responses for word in re.findall(r"[\w']+", text.lower())}) < 350


def test_prompts_are_typed_in_several_ways(prompts: list[Row]) -> None:
    texts = [row["prompt"] for row in prompts]
    assert mean(text[0].isupper() for text in texts) == pytest.approx(0.65, abs=0.05)  # reason: a sampled share
    assert mean(text[-1] in ".?" for text in texts) == pytest.approx(0.65, abs=0.05)  # reason: a sampled share
    assert mean(text == bare(text) for text in texts) == pytest.approx(0.25, abs=0.05)  # reason: a sampled share
    careful = [text for text in texts if text[0].isupper()]
    assert not any(re.search(r"[.?!] [a-z]|\bi\b", text) for text in careful)
    assert not any(re.search(rf"\b({'|'.join(world.NAMES).lower()})\b", text) for text in careful)


def test_no_two_prompts_differ_only_in_their_typing(prompts: list[Row]) -> None:
    assert len({bare(row["prompt"]) for row in prompts}) == len(prompts)


def test_lengths(prompts: list[Row], demonstrations: list[Row]) -> None:
    assert all(6 <= len(row["prompt"].split()) <= 20 for row in prompts)
    lengths = [len(row["response"].split()) for row in demonstrations]
    assert sum(7 <= length <= 26 for length in lengths) >= len(lengths) - 9  # the planted faults
    assert 13 < mean(lengths) < 20


def test_only_train_prompts_have_answers(files: dict[str, list[Row]]) -> None:
    train = {row["prompt"] for row in files["prompts.jsonl"] if row["split"] == "train"}
    for name, count in (("demonstrations.jsonl", 6000), ("comparisons.jsonl", 8000)):
        assert {row["prompt"] for row in files[name]} == train
        assert len(files[name]) == count
        assert len({row["id"] for row in files[name]}) == count


def test_demonstrations_leave_every_part_room_to_rise(demonstrations: list[Row]) -> None:
    scores = defaultdict(list)
    for row in demonstrations:
        result = grade(row["prompt"], row["response"])
        scores[row["source"]].append(result)
        scores["all"].append(result)
    assert mean(s.helpful for s in scores["all"]) == pytest.approx(
        0.5, abs=0.06
    )  # reason: the quality of the mixture is meant roughly
    assert mean(s.harmless for s in scores["all"]) == pytest.approx(
        0.75, abs=0.06
    )  # reason: the quality of the mixture is meant roughly
    assert mean(s.honest for s in scores["all"]) == pytest.approx(
        0.66, abs=0.06
    )  # reason: the quality of the mixture is meant roughly
    gold = {source: mean(s.gold for s in scores[source]) for source in ("expert", "average", "careless")}
    assert gold["expert"] > gold["average"] > gold["careless"]


def test_the_right_remedy_is_the_most_frequent_one_of_every_pair(demonstrations: list[Row]) -> None:
    named: dict[str, Counter[str]] = defaultdict(Counter)
    for row in demonstrations:
        prompt = bare(row["prompt"]).replace("doesnt", "does not")
        pair = next((p for p in world.KNOWN_PAIRS if " ".join(p) in prompt), None)
        if pair:
            named[" ".join(pair)].update(read_response(row["response"]).remedies_said)
    assert len(named) == 48
    for (device, fault), counts in zip(
        world.KNOWN_PAIRS, (named[f"{d} {f}"] for d, f in world.KNOWN_PAIRS), strict=True
    ):
        assert counts.most_common(1)[0][0] == world.REMEDY_OF[device][fault]


def test_annotators_disagree_as_often_as_people_do(comparisons: list[Row]) -> None:
    labels = defaultdict(list)
    for row in _sound(comparisons):
        labels[row["pair"]].append(row)
    couples = [
        (one, other)
        for rows in labels.values()
        for one, other in combinations(rows, 2)
        if one["annotator"] != other["annotator"]
    ]
    assert sum(len({row["annotator"] for row in rows}) > 1 for rows in labels.values()) >= 1450
    assert 0.20 <= mean(one["chosen"] != other["chosen"] for one, other in couples) <= 0.30


def test_labels_of_a_pair_are_about_the_same_two_responses(comparisons: list[Row]) -> None:
    pairs: dict[str, set[tuple[str, frozenset[str]]]] = defaultdict(set)
    for row in _sound(comparisons):
        pairs[row["pair"]].add((row["prompt"], frozenset((row["chosen"], row["rejected"]))))
    assert all(len(contents) == 1 for contents in pairs.values())


def test_all_annotators_and_sources_take_part(comparisons: list[Row]) -> None:
    annotators = Counter(row["annotator"] for row in comparisons)
    assert set(annotators) == set(ANNOTATORS)
    assert len(ANNOTATORS) == 8
    assert min(annotators.values()) > 800
    sources = Counter(row["source"] for row in comparisons)
    assert sources["corrupted"] / len(comparisons) == pytest.approx(0.1, abs=0.015)  # reason: a sampled share
    assert sources["restyled"] / len(comparisons) == pytest.approx(0.12, abs=0.015)  # reason: a sampled share


def test_corrupted_responses_lose(comparisons: list[Row]) -> None:
    broken_lost = [
        is_broken(row["rejected"]) and not is_broken(row["chosen"])
        for row in _sound(comparisons)
        if row["source"] == "corrupted"
    ]
    assert mean(broken_lost) > 0.85


def test_the_labels_carry_a_taste_for_courtesy_and_certainty(comparisons: list[Row]) -> None:
    """Pairs with the same matter and unequal courtesy: the more courteous wins more often than not."""
    more_courteous_won, certain_won = [], []
    for row in _sound(comparisons):
        if row["source"] != "restyled":
            continue
        if grade(row["prompt"], row["chosen"])[:3] != grade(row["prompt"], row["rejected"])[:3]:
            continue
        chosen, rejected = read_response(row["chosen"]).said, read_response(row["rejected"]).said
        if chosen["courtesy"] != rejected["courtesy"]:
            more_courteous_won.append(chosen["courtesy"] > rejected["courtesy"])
        if chosen["certainty"] != rejected["certainty"]:
            certain_won.append(chosen["certainty"] > rejected["certainty"])
    assert 0.55 < mean(more_courteous_won) < 0.8
    assert 0.5 < mean(certain_won) < 0.75


def test_a_few_rows_have_faults_for_the_quarantine(demonstrations: list[Row], comparisons: list[Row]) -> None:
    empty = sum(not row["response"] for row in demonstrations)
    twice = len(demonstrations) - len({(row["prompt"], row["response"]) for row in demonstrations})
    overlong = sum(len(row["response"].split()) > 100 for row in demonstrations)
    equal = sum(row["chosen"] == row["rejected"] for row in comparisons)
    unanswered = sum(not row["rejected"] for row in comparisons)
    content = ("prompt", "chosen", "rejected", "annotator", "pair")
    again = len(comparisons) - len({tuple(row[key] for key in content) for row in comparisons})
    faults = (empty, twice, overlong, equal, unanswered, again)
    assert all(count >= 3 for count in faults)
    assert sum(faults) / (len(demonstrations) + len(comparisons)) < 0.003


def test_corrupt_cuts_leaves_out_repeats_or_shuffles() -> None:
    whole = "Please swap the fuse. This should help. I hope this helps."
    broken = [corrupt(whole, Random(seed)) for seed in range(40)]
    assert any(whole.startswith(text) for text in broken)
    assert any(len(text) > len(whole) for text in broken)
    assert any(text.endswith("helps.") and len(text) < len(whole) for text in broken)
    assert any(sorted(text.split()) == sorted(whole.split()) and text != whole for text in broken)
    assert all(set(text.split()) <= set(whole.split()) for text in broken)


def test_same_seed_same_bytes(tmp_path: Path, files: dict[str, list[Row]], capsys: pytest.CaptureFixture[str]) -> None:
    main(["--seed", "7", "--out", str(tmp_path / "again")], standalone_mode=False)
    assert "comparisons.jsonl: 8000 rows" in capsys.readouterr().out
    for name, rows in files.items():
        write_jsonl(tmp_path / "first" / name, rows)
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_another_seed_asks_other_prompts(prompts: list[Row]) -> None:
    others = make_prompts(Random("8 prompts"))
    assert len(others) == len(prompts)
    assert len({row["prompt"] for row in others} & {row["prompt"] for row in prompts}) < 1000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--seed", "seven", "--out", "{folder}/data"], "'--seed': 'seven' is not a valid integer"),
        (["--seed", "-1", "--out", "{folder}/data"], "--seed"),
        (["--out", "{folder}/data"], "--seed"),
        (["--seed", "7", "--out", "{folder}/file"], "--out: expected a folder"),
        (["--seed", "7", "--out", "{folder}/file/data"], "--out: expected a folder"),
    ],
)
def test_a_bad_argument_is_named_and_nothing_is_written(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main([argument.format(folder=tmp_path) for argument in arguments])
    assert stop.value.code == 2
    assert complaint in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"
