"""Checks that look at several columns of a row, or at several rows: a frame in, a truth a row out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import pandas as pd

from components.data_validation.conversations import are_turns, texts_of
from components.data_validation.normalisation import fingerprint, has_encoding_fault, visible

_TEXTS = ("prompt", "response", "chosen", "rejected")
Count = Callable[[Sequence[str]], Sequence[int]]  # the lengths of texts, in tokens


def are_new(frame: pd.DataFrame) -> pd.Series:
    """False for a row that looks like an earlier one in everything but the id.

    Where labels of one pair come without the annotator's name, equal rows are two annotators who agree.
    """
    ids: Sequence[object] = [None] * len(frame)
    if "pair" in frame:
        named = frame["annotator"].notna() if "annotator" in frame else pd.Series(False, index=frame.index)
        ids = frame["id"].map(_looks).where(frame["pair"].notna() & ~named, "").tolist()
    columns = [frame[column].tolist() for column in frame.columns if column != "id"]
    texts = [frame[column].tolist() for column in _TEXTS if column in frame]
    alike = [hash(tuple(map(_seen, row))) for row in zip(*texts, strict=True)] if texts else [0] * len(frame)
    counts = Counter(alike)
    seen: set[bytes] = set()
    new = []
    for hashed, *row in zip(alike, ids, *columns, strict=True):
        before = len(seen)
        if counts[hashed] > 1:  # no other row has such texts, else; most rows need no closer look
            seen.add(fingerprint(*map(_looks, row)))
        new.append(counts[hashed] == 1 or len(seen) > before)
    return pd.Series(new, index=frame.index)


def _seen(value: object) -> str:
    return visible(value) if isinstance(value, str) else repr(value)


def _looks(value: object) -> str:
    """A value as a reader sees it: equal for those that look equal, and told from those of another type."""
    return repr(visible(value) if isinstance(value, str) else value)


def responses_differ(frame: pd.DataFrame) -> pd.Series:
    return frame["chosen"] != frame["rejected"]


def responses_look_different(frame: pd.DataFrame) -> pd.Series:
    return pd.Series(
        [
            not isinstance(chosen, str)
            or not isinstance(rejected, str)
            or chosen == rejected
            or visible(chosen) != visible(rejected)
            for chosen, rejected in zip(frame["chosen"], frame["rejected"], strict=True)
        ],
        index=frame.index,
    )


def fit_their_pair(frame: pd.DataFrame) -> pd.Series:
    """False for a row whose prompt and responses are not those that most rows of its `pair` have.

    Rows with a broken text take no part: that they differ from their pair is not their fault's name.
    """
    if "pair" not in frame:
        return pd.Series(True, index=frame.index)
    contents = [
        (visible(prompt), *sorted((visible(chosen), visible(rejected))))
        if all(map(_is_sound, (pair, prompt, chosen, rejected))) and visible(chosen) != visible(rejected)
        else None
        for pair, prompt, chosen, rejected in zip(
            frame["pair"], frame["prompt"], frame["chosen"], frame["rejected"], strict=True
        )
    ]
    counts: dict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
    for pair, content in zip(frame["pair"], contents, strict=True):
        if content is not None:
            counts[pair][content] += 1
    usual = {pair: count.most_common(1)[0][0] for pair, count in counts.items()}
    return pd.Series(
        [content is None or usual[pair] == content for pair, content in zip(frame["pair"], contents, strict=True)],
        index=frame.index,
    )


def prompts_are_short(frame: pd.DataFrame, limit: int, count: Count) -> pd.Series:
    """False for a prompt of more tokens than that; the turns of a conversation count together.

    One that is no text, or no turns, has another fault.
    """
    conversations = frame["messages"] if "messages" in frame else [None] * len(frame)
    texts = [
        texts_of({"prompt": prompt, "messages": messages})
        if are_turns(messages)
        else [prompt if isinstance(prompt, str) else ""]
        for prompt, messages in zip(frame["prompt"], conversations, strict=True)
    ]
    lengths = iter(count([text for each in texts for text in each]))
    return pd.Series([sum(next(lengths) for _ in each) <= limit for each in texts], index=frame.index)


def _is_sound(text: object) -> bool:
    return isinstance(text, str) and bool(visible(text)) and not has_encoding_fault(text)
