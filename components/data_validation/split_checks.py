"""Checks of the parts of the clean data: none is empty or too small, no prompt is in two of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from components.config import DataValidation
from components.data_validation.checks import NO_COMPARISONS, SHOWN_CHARACTERS, SHOWN_EXAMPLES, Check, absent
from components.data_validation.normalisation import clipped
from components.data_validation.reading import Row
from components.data_validation.splits import MAY_BE_EMPTY, Split, kin_key


def two_splits_check(prompts: list[tuple[Split, Row]]) -> Check:
    """A prompt in two splits is a failure: nobody can tell which row is the wrong one.

    So are dialogues that begin with one question: each tells how the others may go on.
    """
    places: dict[str, list[tuple[Split, Row]]] = defaultdict(list)
    for split, row in prompts:
        places[kin_key(row)].append((split, row))
    torn = [rows for rows in places.values() if len({split for split, _ in rows}) > 1]
    examples = [
        " and ".join(f"row {row['raw_row']} ({split})" for split, row in rows)
        + f": {clipped(rows[0][1]['prompt'], SHOWN_CHARACTERS)}"
        for rows in torn[:SHOWN_EXAMPLES]
    ]
    alike = ", as have all dialogues that begin alike" if any(row.get("messages") for _, row in prompts) else ""
    return Check(
        name="prompt_in_two_splits",
        status="failure" if torn else "ok",
        expected="every prompt is in one split" + alike,
        found=f"{len(torn)} prompts in two or more" if torn else "none in two",
        value=len(torn),
        limit=0,
        examples=examples,
        remedy="give all rows of a prompt the same split in prompts.jsonl" + alike,
    )


def empty_split_check(sizes: dict[str, int], given: Collection[str]) -> Check:
    """An empty part is a failure where a later stage needs it: one of a role that no file is given for may be empty."""
    empty = [
        part
        for part, size in sizes.items()
        if size == 0 and part not in MAY_BE_EMPTY and part.partition("_")[0] in given
    ]
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
        split: len({kin_key(row) for drawn, row in prompts if drawn == split}) for split in ("validation", "test")
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
    if not any(rows for part, rows in parts.items() if part.startswith("comparisons")):
        return absent("few_heldout_comparisons", "held-out comparisons of reward model and judge", NO_COMPARISONS)
    counts = {
        scorer: len({kin_key(row) for row in parts[f"comparisons_{scorer}_heldout"]})
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


def kinds_check(prompts: list[Row]) -> Check:
    """The share of each kind of prompt; information only."""
    name, expected = "kinds", "prompts say their kind"
    kinds = Counter(row["kind"] for row in prompts if row.get("kind") is not None)
    if not kinds:
        return absent(name, expected, "no column kind")
    shares = ", ".join(f"{clipped(kind, 40)} {count / len(prompts):.1%}" for kind, count in kinds.most_common())
    return Check(name, "ok", expected, shares, len(kinds), None, [], "")
