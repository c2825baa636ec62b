"""Dataset-level checks. Each states what should hold, what was found, the limit, and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Literal

from components.config import DataValidation
from components.data_validation import schemas
from components.data_validation.labels import LabelStatistics
from components.data_validation.near_duplicates import repeated_texts, twins_between
from components.data_validation.normalisation import clipped, length_in_words, prompt_key
from components.data_validation.reading import HALF_SURROGATE, NOT_UTF8, Fault, Row
from components.data_validation.schemas import FileName
from components.data_validation.splits import LEAKED, MAY_BE_EMPTY, Split, responses_key

Status = Literal["ok", "warning", "failure", "not in the data"]
SHOWN_EXAMPLES = 5
SHOWN_CHARACTERS = 160


@dataclass(frozen=True)
class Check:
    """One line of the report. `expected` is what should hold; a failure stops the stage."""

    name: str
    status: Status
    expected: str
    found: str
    value: float | None
    limit: float | None
    examples: list[str]
    remedy: str


@dataclass(frozen=True)
class Rejected:
    """A row that is not in the clean data, and why. A withheld row is sound, but its prompt is held out."""

    file: FileName
    row: int
    faults: list[Fault]
    content: Row | str
    withheld: bool


def _absent(name: str, expected: str, why: str) -> Check:
    return Check(name, "not in the data", expected, why, None, None, [], "")


# The kinds of faults that reject a row: name -> (what should hold, what to do).
_FAULT_CHECKS = {
    "schema": (
        "every row fits its schema: a JSON object, all values present and text, known splits, ids that occur "
        "once, the same responses in all rows of a pair",
        "mend what writes the data",
    ),
    "empty_or_overlong_text": (
        "no text is empty (spaces and invisible characters are nothing) or longer than its limit",
        "mend the rows, or raise the limits in data_validation",
    ),
    "exact_duplicates": ("no row repeats an earlier one", "remove the copies at the source"),
    "chosen_equals_rejected": (
        "the two responses of a comparison differ",
        "drop such pairs before labelling",
    ),
    "responses_look_equal": (
        "the two responses of a comparison differ in something that can be seen (not in outer space, Unicode "
        "composition or invisible characters)",
        "drop such pairs before labelling",
    ),
    "encoding_faults": (
        "no text holds U+FFFD, control characters or UTF-8 read as another encoding",
        "decode the source as what it is, then write UTF-8",
    ),
    "leaked_prompts": (
        "no demonstration or comparison has a validation or test prompt",
        "collect training rows on training prompts only",
    ),
}


def _fault_check_of(fault: Fault) -> str:
    message = fault.message
    if message == schemas.EMPTY or message.startswith(schemas.TOO_LONG):
        return "empty_or_overlong_text"
    if message == schemas.REPEATED_ROW:
        return "exact_duplicates"
    if message == schemas.EQUAL_RESPONSES:
        return "chosen_equals_rejected"
    if message == schemas.EQUAL_TO_THE_EYE:
        return "responses_look_equal"
    if message in (schemas.ENCODING, NOT_UTF8, HALF_SURROGATE):
        return "encoding_faults"
    return "leaked_prompts" if message == LEAKED else "schema"


def fault_checks(rejected: list[Rejected]) -> list[Check]:
    """How many rows were quarantined, by the kind of fault. A row with several kinds counts in each."""
    rows: dict[str, list[str]] = defaultdict(list)
    for row in rejected:
        if row.withheld:
            continue
        for name in sorted({_fault_check_of(fault) for fault in row.faults}):
            faults = ", ".join(str(fault) for fault in row.faults if _fault_check_of(fault) == name)
            rows[name].append(f"{row.file}.jsonl row {row.row}: {faults}")
    return [
        Check(
            name=name,
            status="warning" if rows[name] else "ok",
            expected=expected,
            found=f"{len(rows[name])} rows, quarantined" if rows[name] else "no row",
            value=len(rows[name]),
            limit=0,
            examples=rows[name][:SHOWN_EXAMPLES],
            remedy=remedy,
        )
        for name, (expected, remedy) in _FAULT_CHECKS.items()
    ]


def near_duplicate_check(file: FileName, rows: list[Row], limits: DataValidation) -> Check:
    """Rows that deduplication would remove. Several labels of the same two responses are one row here."""
    texts: dict[object, tuple[str, int]] = {}
    for row in rows:
        if file == "comparisons":
            key = responses_key(row)
            texts.setdefault(key, ("\n".join(key), row["raw_row"]))
        else:
            text = "\n".join((row["prompt"], row["response"])) if file == "demonstrations" else row["prompt"]
            texts[row["raw_row"]] = (text, row["raw_row"])
    distinct = list(texts.values())
    repeats = repeated_texts([text for text, _ in distinct], limits.near_duplicate_similarity)
    fraction = len(repeats) / len(distinct) if distinct else 0.0
    return Check(
        name=f"near_duplicates_{file}",
        status="warning" if fraction > limits.max_near_duplicate_fraction else "ok",
        expected=f"few {file} nearly repeat an earlier one (word shingles, Jaccard similarity of at least "
        f"{limits.near_duplicate_similarity:g})",
        found=f"{len(repeats)} of {len(distinct)}",
        value=fraction,
        limit=limits.max_near_duplicate_fraction,
        examples=[
            f"{file}.jsonl row {distinct[later][1]} repeats row {distinct[earlier][1]}: "
            f"{clipped(distinct[later][0], SHOWN_CHARACTERS)}"
            for later, earlier in list(repeats.items())[:SHOWN_EXAMPLES]
        ],
        remedy="deduplicate the source; repeated rows count several times in training",
    )


def near_duplicates_across_splits_check(train: list[Row], heldout: list[Row], limits: DataValidation) -> Check:
    """Validation and test prompts that nearly are prompts of training, demonstrations or comparisons."""
    train_texts = list(dict.fromkeys(row["prompt"] for row in train))
    heldout_texts = list(dict.fromkeys(row["prompt"] for row in heldout))
    twins = twins_between(train_texts, heldout_texts, limits.near_duplicate_similarity)
    fraction = len(twins) / len(heldout_texts) if heldout_texts else 0.0
    return Check(
        name="near_duplicates_across_splits",
        status="warning" if fraction > limits.max_near_duplicate_fraction else "ok",
        expected="few validation and test prompts nearly repeat a training prompt",
        found=f"{len(twins)} of {len(heldout_texts)} held-out prompts",
        value=fraction,
        limit=limits.max_near_duplicate_fraction,
        examples=[
            f"{clipped(heldout_texts[here], SHOWN_CHARACTERS // 2)} / "
            f"{clipped(train_texts[there], SHOWN_CHARACTERS // 2)}"
            for here, there in list(twins.items())[:SHOWN_EXAMPLES]
        ],
        remedy="move such prompts to training, or the evaluation measures memory",
    )


def two_splits_check(prompts: list[tuple[Split, Row]]) -> Check:
    """A prompt in two splits is a failure: nobody can tell which row is the wrong one."""
    places: dict[str, list[tuple[Split, Row]]] = defaultdict(list)
    for split, row in prompts:
        places[prompt_key(row["prompt"])].append((split, row))
    torn = [rows for rows in places.values() if len({split for split, _ in rows}) > 1]
    examples = [
        " and ".join(f"row {row['raw_row']} ({split})" for split, row in rows)
        + f": {clipped(rows[0][1]['prompt'], SHOWN_CHARACTERS)}"
        for rows in torn[:SHOWN_EXAMPLES]
    ]
    return Check(
        name="prompt_in_two_splits",
        status="failure" if torn else "ok",
        expected="every prompt is in one split",
        found=f"{len(torn)} prompts in two or more" if torn else "none in two",
        value=len(torn),
        limit=0,
        examples=examples,
        remedy="give all rows of a prompt the same split in prompts.jsonl",
    )


def empty_split_check(sizes: dict[str, int]) -> Check:
    """An empty part is a failure where a later stage needs it."""
    empty = [part for part, size in sizes.items() if size == 0 and part not in MAY_BE_EMPTY]
    return Check(
        name="empty_split",
        status="failure" if empty else "ok",
        expected="every part of the clean data has rows",
        found=f"no row in {', '.join(empty)}" if empty else f"{len(sizes)} parts, all with rows",
        value=len(empty),
        limit=0,
        examples=[],
        remedy="add rows of that split to the raw file, or change the fractions in data_validation "
        "(validation_fraction and test_fraction count where prompts.jsonl has no column split)",
    )


def few_heldout_prompts_check(prompts: list[tuple[Split, Row]], limits: DataValidation) -> Check:
    """A split whose prompts are too few for an interval is a failure: the last stages would find out too late."""
    counts = {
        split: len({prompt_key(row["prompt"]) for drawn, row in prompts if drawn == split})
        for split in ("validation", "test")
    }
    least = limits.min_heldout_prompts
    few = {split: count for split, count in counts.items() if 0 < count < least}  # none: see empty_split_check
    drawn = not any("split" in row for _, row in prompts)
    more = " or ".join(f"data_validation.{split}_fraction" for split in few) if drawn else "the rows of that split"
    return Check(
        name="few_heldout_prompts",
        status="failure" if few else "ok",
        expected=f"at least {least} validation and {least} test prompts (data_validation.min_heldout_prompts): fewer "
        "give no interval to decide by",
        found=" and ".join(f"{count} {split} prompts" for split, count in (few or counts).items()),
        value=min(counts.values()),
        limit=least,
        examples=[],
        remedy=f"bring more prompts, or raise {more}; to go on with intervals that say little, lower "
        "data_validation.min_heldout_prompts",
    )


def few_heldout_comparisons_check(parts: dict[str, list[Row]], limits: DataValidation) -> Check:
    """Whether the accuracy of reward model and judge is read off a handful of prompts."""
    counts = {
        scorer: len({prompt_key(row["prompt"]) for row in parts[f"comparisons_{scorer}_heldout"]})
        for scorer in ("reward_model", "judge")
    }
    fewest = min(counts.values())
    return Check(
        name="few_heldout_comparisons",
        status="warning" if fewest < limits.min_heldout_prompts else "ok",
        expected="the held-out comparisons of reward model and judge have as many prompts as a split needs",
        found=", ".join(f"{scorer.replace('_', ' ')}: {count} prompts" for scorer, count in counts.items()),
        value=fewest,
        limit=limits.min_heldout_prompts,
        examples=[],
        remedy="raise data_validation.heldout_fraction, or compare responses to more prompts: the held-out accuracy "
        "is that of these few",
    )


def contradiction_check(comparisons: list[Row], labels: LabelStatistics) -> Check:
    """Whether one annotator labelled the same two responses both ways. Different annotators may disagree."""
    name, expected = "contradicting_labels", "no annotator labels the same two responses both ways"
    if any(row.get("annotator") is not None for row in comparisons):
        contradicted = labels.self_contradicted_rows
    elif any(row.get("pair") is not None for row in comparisons):
        return _absent(name, expected, "no column annotator: who labelled what is unknown")
    else:
        expected = "the same two responses are not labelled both ways"
        contradicted = labels.contradicted_rows
    return Check(
        name=name,
        status="warning" if contradicted else "ok",
        expected=expected,
        found=f"{len(contradicted)} times; by several annotators, who may disagree: "
        f"{len(labels.contradicted_rows)} of {sum(labels.labels_per_pair.values())} response pairs",
        value=len(contradicted),
        limit=0,
        examples=["comparisons.jsonl rows " + ", ".join(map(str, rows)) for rows in contradicted[:SHOWN_EXAMPLES]],
        remedy="ask these annotators again, or drop the rows",
    )


def agreement_check(labels: LabelStatistics, limits: DataValidation) -> Check:
    """How often two annotators agree; a reward model cannot be more accurate than its labels are."""
    name, expected = "annotator_agreement", "two annotators mostly agree on the same two responses"
    if labels.agreement is None:
        why = "no two responses have labels that say whose they are (columns annotator or pair)"
        return _absent(name, expected, why)
    return Check(
        name=name,
        status="warning" if labels.agreement < limits.min_annotator_agreement else "ok",
        expected=expected,
        found=f"{labels.agreement:.1%} of {labels.label_pairs} pairs of labels agree",
        value=labels.agreement,
        limit=limits.min_annotator_agreement,
        examples=[],
        remedy="make the instructions clearer, or collect more labels a pair",
    )


def majority_check(labels: LabelStatistics, limits: DataValidation) -> Check:
    """Whether some annotator stands against the others; the margin of chance is granted to each."""
    name, expected = (
        "annotator_against_majority",
        "every annotator mostly agrees with the majority of the others",
    )
    judged = {name: record for name, record in labels.annotators.items() if record.agreement is not None}
    if not judged:
        return _absent(name, expected, "no annotator labelled responses that others have a majority on")
    below = [who for who, record in judged.items() if record.is_clearly_below(limits.min_annotator_agreement)]
    lowest = min(judged, key=lambda who: (judged[who].agreement, who))
    return Check(
        name=name,
        status="warning" if below else "ok",
        expected=expected,
        found=f"the lowest of {len(judged)} annotators: {clipped(lowest, 40)}, "
        f"{judged[lowest].agreement:.1%} of {judged[lowest].compared} labels",
        value=judged[lowest].agreement,
        limit=limits.min_annotator_agreement,
        examples=[f"{clipped(who, 40)}: {judged[who].agreement:.1%}" for who in below[:SHOWN_EXAMPLES]],
        remedy="look at these annotators' labels, and leave them out if they are noise",
    )


def length_bias_check(comparisons: list[Row], limits: DataValidation) -> Check:
    """How often the longer answer wins, in words, among the comparisons whose answers differ in length."""
    name, expected = "length_bias", "neither the longer nor the shorter answer nearly always wins"
    differences = [length_in_words(row["chosen"]) - length_in_words(row["rejected"]) for row in comparisons]
    unequal = [difference for difference in differences if difference != 0]
    if not unequal:
        return _absent(name, expected, "all answers are of the same length")
    longer_wins = sum(difference > 0 for difference in unequal) / len(unequal)
    biased = max(longer_wins, 1.0 - longer_wins) > limits.max_longer_wins
    return Check(
        name=name,
        status="warning" if biased else "ok",
        expected=expected,
        found=f"the longer answer wins {longer_wins:.1%} of {len(unequal)} comparisons; "
        f"{len(differences) - len(unequal)} are of equal length",
        value=longer_wins,
        limit=limits.max_longer_wins,
        examples=[],
        remedy="a reward model may learn length alone: balance the pairs by length",
    )


def kinds_check(prompts: list[Row]) -> Check:
    """The share of each kind of prompt; information only."""
    name, expected = "kinds", "prompts say their kind"
    kinds = Counter(row["kind"] for row in prompts if row.get("kind") is not None)
    if not kinds:
        return _absent(name, expected, "no column kind")
    shares = ", ".join(f"{clipped(kind, 40)} {count / len(prompts):.1%}" for kind, count in kinds.most_common())
    return Check(name, "ok", expected, shares, len(kinds), None, [], "")


def label_counts_check(labels: LabelStatistics) -> Check:
    """How many labels the response pairs have; information only."""
    counts = ", ".join(f"{pairs} with {n}" for n, pairs in labels.labels_per_pair.items())
    pairs = sum(labels.labels_per_pair.values())
    total = sum(n * count for n, count in labels.labels_per_pair.items())
    return Check(
        name="label_counts",
        status="ok",
        expected="response pairs have one or more labels",
        found=f"{total} labels of {pairs} response pairs: {counts}; {len(labels.annotators)} named annotators",
        value=total / pairs if pairs else 0.0,
        limit=None,
        examples=[],
        remedy="",
    )
