"""What several labels of the same two responses say about the annotators."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from components.data_validation.comparison_keys import Keys
from components.data_validation.reading import Row
from components.measuring.intervals import Interval, share_interval

CONFIDENCE = 0.95  # of what is said of an annotator


@dataclass(frozen=True)
class AnnotatorRecord:
    """One annotator: labels given, and how often they are the majority's of the other annotators.

    `compared` counts the labels for which the others have a majority; ties say nothing.
    """

    labels: int
    compared: int
    agreeing: int

    @property
    def agreement(self) -> float | None:
        return self.agreeing / self.compared if self.compared else None

    @property
    def interval(self) -> Interval | None:
        """The Wilson interval of the agreement; None of fewer than two labels, which say nothing."""
        if self.compared < 2:
            return None
        votes = [1.0] * self.agreeing + [0.0] * (self.compared - self.agreeing)
        return share_interval(votes, confidence=CONFIDENCE)

    def is_clearly_below(self, limit: float) -> bool:
        """Below the limit beyond chance: its whole interval is."""
        return self.interval is not None and self.interval.high < limit


@dataclass(frozen=True)
class LabelStatistics:
    """Counts over all comparisons; two labels belong together when prompt and both responses are the same."""

    label_pairs: int  # two labels of the same responses by different annotators
    agreeing_label_pairs: int
    labels_per_pair: dict[int, int]  # number of labels -> number of response pairs with that many
    annotators: dict[str, AnnotatorRecord]
    contradicted_rows: list[list[int]]  # raw rows of pairs that are labelled both ways, by whomever
    self_contradicted_rows: list[list[int]]  # and of those that one annotator labelled both ways

    @property
    def mean_agreement(self) -> float | None:
        """With the majority of the others, over all labels for which there is one."""
        compared = sum(record.compared for record in self.annotators.values())
        return sum(record.agreeing for record in self.annotators.values()) / compared if compared else None

    @property
    def agreement(self) -> float | None:
        """The probability that two annotators agree on the same two responses."""
        return self.agreeing_label_pairs / self.label_pairs if self.label_pairs else None


def label_statistics(comparisons: list[Row], keys: Keys) -> LabelStatistics:
    """Compare all labels of the same two responses. A label of a `pair` without a name is an annotator of its own.

    One with neither is left out of all agreement: of those that agree only the first was kept (see schemas), so
    they could only disagree.
    """
    groups: dict[bytes, list[Row]] = defaultdict(list)
    for row in comparisons:
        groups[keys(row).responses].append(row)

    label_pairs = agreeing_label_pairs = 0
    labels: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    agreeing: Counter[str] = Counter()
    contradicted, self_contradicted = [], []
    for rows in groups.values():
        if len(rows) == 1 and rows[0].get("annotator") is None:
            continue  # nothing to compare; in most data these are all
        ways = {keys(row).chosen_is_first for row in rows}
        votes: Counter[bool] = Counter(
            keys(row).chosen_is_first for row in rows if row.get("annotator") is not None or row.get("pair") is not None
        )
        own: dict[str, Counter[bool]] = defaultdict(Counter)
        for row in rows:
            if row.get("annotator") is not None:
                own[row["annotator"]][keys(row).chosen_is_first] += 1

        label_pairs += math.comb(votes.total(), 2) - sum(math.comb(mine.total(), 2) for mine in own.values())
        agreeing_label_pairs += _same(votes) - sum(_same(mine) for mine in own.values())
        if len(ways) == 2:
            contradicted.append([row["raw_row"] for row in rows])
        for annotator, mine in own.items():
            labels[annotator] += mine.total()
            if len(mine) == 2:
                self_contradicted.append([row["raw_row"] for row in rows if row.get("annotator") == annotator])
            margin = (votes[True] - mine[True]) - (votes[False] - mine[False])
            if margin != 0:
                compared[annotator] += mine.total()
                agreeing[annotator] += mine[margin > 0]
    return LabelStatistics(
        label_pairs=label_pairs,
        agreeing_label_pairs=agreeing_label_pairs,
        labels_per_pair=dict(sorted(Counter(len(rows) for rows in groups.values()).items())),
        annotators={
            annotator: AnnotatorRecord(labels[annotator], compared[annotator], agreeing[annotator])
            for annotator in sorted(labels)
        },
        contradicted_rows=contradicted,
        self_contradicted_rows=self_contradicted,
    )


def _same(votes: Counter[bool]) -> int:
    """How many pairs of labels are equal."""
    return sum(math.comb(count, 2) for count in votes.values())
