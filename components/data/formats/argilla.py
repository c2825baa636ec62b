"""Argilla's records with a ranking or a label question: as `dataset.records.to_json` writes them, and as it takes them.

https://docs.argilla.io: a ranking is the names of the fields, the best first (records of its first version have ranks,
and ties, beside them); a label is the name of the better field, or says that neither is. `to_json` says of no response
whether it was submitted; where something says so, drafts count for nothing and discarded ones are skips.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from components.data.formats.base import Format, Row, Unmapped, without
from components.data.formats.labels import NOBODY_PREFERRED, comparisons_of
from components.data.formats.named_answers import asked_among, preferred, two_answers
from components.data.formats.ranked import pairs_of

_WHY = ("why", "reason", "rationale", "explanation", "comment", "feedback")
_OF_ANSWERS = ("policy", "digest", "reward", "judge")  # metadata is flat: policy1, policy2, ...
_PREFERENCE, _NAMES = "preference", ("response1", "response2")  # what we call them


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return isinstance(row.get("fields"), dict) and isinstance(row.get("responses"), dict | list)


def _rows_of(row: Row) -> list[Row]:
    rows = []
    for user, given in _given(row["responses"]):
        ranks = _ranks(given, row["fields"])
        if len(ranks) > 2:
            rows += _ranked(row, user, given, ranks)
        elif ranks:
            rows += comparisons_of(_label(row, user, given, ranks))
    return rows


def labels_of_record(record: Row) -> list[Row]:
    """A label for each response to a record of two answers, as the page of `proximal label` would have written it.

    Raises:
        Unmapped: a record without prompt and two answers, or a response that prefers none of them.
    """
    found = [(user, given, _ranks(given, record["fields"])) for user, given in _given(record["responses"])]
    return [_label(record, user, given, ranks) for user, given, ranks in found if ranks]


def record_of_label(label: Row) -> Row:
    """A label of the page as a record with one response, which has none where the annotator skipped it.

    One record for each label, not for each pair: the first answer is what its annotator saw first.
    """
    user = _user_id(label["annotator"])
    given = {} if label["label"] == "skip" else {_PREFERENCE: (*_NAMES, "tie")[("A", "B", "tie").index(label["label"])]}
    if given and label.get("why"):
        given["why"] = label["why"]
    metadata = without(label, "label", "why", "shown", "prompt", "messages")
    for number, answer in enumerate(label["shown"], start=1):
        policy = answer.get("policy") or {}
        told = {**without(answer, "text", "policy"), "policy": policy.get("name"), "digest": policy.get("digest")}
        metadata |= {f"{name}{number}": value for name, value in told.items() if value is not None}
    asked = {name: label[name] for name in ("prompt", "messages") if label.get(name) is not None}
    answers = {name: answer["text"] for name, answer in zip(_NAMES, label["shown"], strict=True)}
    return {
        "id": f"{label['pair']}/{label['annotator']}",
        "fields": asked | answers,
        "metadata": metadata,
        "suggestions": {},
        "responses": {
            question: [{"value": value, "user_id": user, "status": "submitted"}] for question, value in given.items()
        },
        "vectors": {},
    }


def _given(responses: object) -> list[tuple[str | None, Row]]:
    """What each user has answered, by question; of the form that the server gives, or of `to_json`'s."""
    users: dict[str | None, Row] = {}
    try:
        if isinstance(responses, list):
            told = [
                (each.get("user_id"), question, value["value"], each.get("status"))
                for each in responses
                for question, value in (each.get("values") or {}).items()
            ]
        else:
            told = [
                (each.get("user_id"), question, each["value"], each.get("status"))
                for question, all_given in responses.items()  # type: ignore[attr-defined]
                for each in all_given
            ]
    except (AttributeError, KeyError, TypeError) as fault:
        raise Unmapped("responses", "is none of Argilla's: values and users by question") from fault
    for user, question, value, status in told:
        if status not in ("draft", "discarded"):
            users.setdefault(None if user is None else str(user), {})[question] = value
    return list(users.items())


def _ranks(given: Row, fields: Row) -> dict[str, float]:
    """The rank of each answer, 1 for the best, by its field; empty where the user has said of none."""
    asked = {name: value for name, value in given.items() if name.lower() not in _WHY}
    told = {name: ranks for name, value in asked.items() if (ranks := _ranking(value, fields))}
    told = told or {name: ranks for name, value in asked.items() if (ranks := _choice(value, fields))}
    if len(told) != 1:
        what = f"has several questions that prefer answers: {', '.join(told)}" if told else "prefers no answer"
        raise Unmapped("responses", what if asked else f"{what}: there is no question but why")
    return next(iter(told.values()))


def _ranking(value: object, fields: Row) -> dict[str, float]:
    if isinstance(value, dict) and isinstance(value.get("value"), list):  # as Parquet has a list of records
        ranks = value.get("rank") or [None] * len(value["value"])
        value = [{"value": name, "rank": rank} for name, rank in zip(value["value"], ranks, strict=False)]
    if not isinstance(value, list):
        return {}
    told = [each if isinstance(each, dict) else {"value": each} for each in value]
    if len(told) < 2 or not all(isinstance(each.get("value"), str) and each["value"] in fields for each in told):
        return {}
    return {each["value"]: each.get("rank") or place for place, each in enumerate(told, start=1)}


def _choice(value: object, fields: Row) -> dict[str, float]:
    if not isinstance(value, str):
        return {}
    first, second = two_answers(fields, "fields")
    ranks = {"A": (1, 2), "B": (2, 1), "tie": (1, 1)}.get(preferred(value, (first, second)))
    return dict(zip((first, second), ranks, strict=True)) if ranks else {}


def _label(record: Row, user: str | None, given: Row, ranks: dict[str, float]) -> Row:
    """Of two answers, in the order of the record's fields."""
    names = tuple(name for name in record["fields"] if name in ranks)
    asked, others = asked_among(record["fields"], names, "fields")
    metadata = dict(record.get("metadata") or {})
    ours = metadata.pop("annotator", None)
    here = isinstance(ours, str) and user == _user_id(ours)
    time = metadata.pop("time", None)
    shown = []
    for number, name in enumerate(names, start=1):
        told = {key: metadata.pop(f"{key}{number}", None) for key in _OF_ANSWERS}
        answer = {"text": record["fields"][name], "reward": told["reward"], "judge": told["judge"]}
        if told["policy"] is not None:
            answer["policy"] = {"name": told["policy"], "digest": told["digest"]}
        shown.append({key: value for key, value in answer.items() if value is not None})
    first, second = (ranks[name] for name in names)
    label = {
        **metadata,
        **others,
        **asked,
        "shown": shown,
        "label": "tie" if first == second else "A" if first < second else "B",
        "pair": metadata.get("pair", record.get("id")),
        "annotator": ours if here else user,
        "time": time if here else None,
        "why": _why(given),
    }
    return {name: value for name, value in label.items() if value not in (None, "")}


def _ranked(record: Row, user: str | None, given: Row, ranks: dict[str, float]) -> list[Row]:
    """Of more than two answers: each better with each worse."""
    asked, others = asked_among(record["fields"], tuple(ranks), "fields")
    kept = {**(record.get("metadata") or {}), **others, **asked, "pair": record.get("id"), "annotator": user}
    kept = {name: value for name, value in {**kept, "why": _why(given)}.items() if value not in (None, "")}
    answers = [{"": record["fields"][name], "rank": rank} for name, rank in ranks.items()]
    named = {"id": f"{record['id']}/{user}"} if record.get("id") is not None else {}
    return pairs_of(named, kept, answers, "rank", best_is_lowest=True)


def _why(given: Row) -> str:
    return "\n".join(value for name, value in given.items() if name.lower() in _WHY and isinstance(value, str))


def _user_id(annotator: str) -> str:
    """A user's id, which Argilla wants as a UUID: the same one for the same name."""
    return str(uuid5(NAMESPACE_URL, f"proximal:{annotator}"))


ARGILLA = Format(
    "Argilla's records",
    "comparisons",
    "fields with prompt, response1 and response2, and responses to a ranking or label question",
    _fits,
    _rows_of,
    why_none=NOBODY_PREFERRED,
)
