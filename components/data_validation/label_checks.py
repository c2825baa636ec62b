"""Checks of the labels: who contradicts whom, how often people agree, whether length alone wins."""

from __future__ import annotations

from components.config import DataValidation
from components.data_validation.checks import NO_COMPARISONS, SHOWN_EXAMPLES, Check, absent
from components.data_validation.labels import LabelStatistics
from components.data_validation.normalisation import clipped, length_in_words
from components.data_validation.reading import Row


def contradiction_check(comparisons: list[Row], labels: LabelStatistics) -> Check:
    """Whether one annotator labelled the same two responses both ways. Different annotators may disagree."""
    name, expected = "contradicting_labels", "no annotator labels the same two responses both ways"
    if not comparisons:
        return absent(name, expected, NO_COMPARISONS)
    if any(row.get("annotator") is not None for row in comparisons):
        contradicted = labels.self_contradicted_rows
    elif any(row.get("pair") is not None for row in comparisons):
        return absent(name, expected, "no column annotator: who labelled what is unknown")
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
        return absent(name, expected, why)
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
        return absent(name, expected, "no annotator labelled responses that others have a majority on")
    below = [who for who, record in judged.items() if record.is_clearly_below(limits.min_annotator_agreement)]
    lowest = min(judged, key=lambda who: (judged[who].agreement, who))
    return Check(
        name=name,
        status="warning" if below else "ok",
        expected=expected,
        found=f"the lowest of {len(judged)} annotators: {clipped(lowest, 40)}, "
        f"{judged[lowest].agreement:.1%} of {judged[lowest].compared} labels; all together {labels.mean_agreement:.1%}",
        value=judged[lowest].agreement,
        limit=limits.min_annotator_agreement,
        examples=[f"{clipped(who, 40)}: {judged[who].agreement:.1%}" for who in below[:SHOWN_EXAMPLES]],
        remedy="look at these annotators' labels, and leave them out if they are noise",
    )


def length_bias_check(comparisons: list[Row], limits: DataValidation) -> Check:
    """How often the longer answer wins, in words, among the comparisons whose answers differ in length."""
    name, expected = "length_bias", "neither the longer nor the shorter answer nearly always wins"
    if not comparisons:
        return absent(name, expected, NO_COMPARISONS)
    differences = [length_in_words(row["chosen"]) - length_in_words(row["rejected"]) for row in comparisons]
    unequal = [difference for difference in differences if difference != 0]
    if not unequal:
        return absent(name, expected, "all answers are of the same length")
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
