"""Label Studio's tasks with a Pairwise tag: as its JSON export has them, and as its import takes them.

https://labelstud.io/guide/task_format and https://labelstud.io/tags/pairwise: `selected` is left or right, and nothing
is there where nobody selected one, which is a tie. Without a selection, a Choices tag may say which, or that it is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.data.formats.base import Format, Row, Unmapped, holds, without
from components.data.formats.labels import NOBODY_PREFERRED, comparisons_of
from components.data.formats.named_answers import asked_among, preferred, two_answers

_SELECTED = {"left": "A", "right": "B"}
_ANNOTATOR = "annotator"  # the control of our own: an import there gives all annotations to whoever imports


def _fits(row: Mapping[str, Any], columns: frozenset[str]) -> bool:
    return isinstance(row.get("data"), dict) and isinstance(row.get("annotations"), list)


def _rows_of(row: Row) -> list[Row]:
    return [made for label in labels_of_task(row) for made in comparisons_of(label)]


def labels_of_task(task: Row) -> list[Row]:
    """A label for each annotation, as the page of `proximal label` would have written it.

    Raises:
        Unmapped: a task without prompt and two answers, or an annotation that is none of a Pairwise tag.
    """
    data = task["data"]
    names = two_answers(data, "data")
    asked, others = asked_among(data, names, "data")
    told = others.pop("shown", None)
    policies = told if isinstance(told, list) and len(told) == 2 else [{}, {}]
    shown = [{**policy, "text": data[name]} for policy, name in zip(policies, names, strict=True)]
    labels = []
    for annotation in task["annotations"]:
        results = _results(annotation)
        by = _texts(results, _ANNOTATOR)
        label = {**others, **asked, "shown": shown, "label": _label(annotation, results, names)}
        label["pair"] = data.get("pair", task.get("id"))
        label["annotator"] = by or _user(annotation.get("completed_by"))
        label["time"] = data.get("time") if by else annotation.get("created_at")
        label["why"] = _texts(results)
        labels.append({name: value for name, value in label.items() if value not in (None, "")})
    return labels


def task_of_label(label: Row) -> Row:
    """A label of the page as a task with one annotation.

    One task for each label, not for each pair: left is what its annotator saw first.
    """
    first, second = label["shown"]
    results = []
    if label["label"] in _SELECTED.values():
        side = next(side for side, name in _SELECTED.items() if name == label["label"])
        results.append(_result("pairwise", "comparison", "comparison", {"selected": side}))
    if label["label"] == "tie":
        results.append(_result("choices", "tie", "prompt", {"choices": ["tie"]}))
    if label.get("why"):
        results.append(_result("textarea", "why", "prompt", {"text": [label["why"]]}))
    results.append(_result("textarea", _ANNOTATOR, "prompt", {"text": [label["annotator"]]}))
    data = without(label, "label", "why", "annotator", "shown") | {
        "answer1": first["text"],
        "answer2": second["text"],
        "shown": [without(answer, "text") for answer in (first, second)],
    }
    return {"data": data, "annotations": [{"result": results, "was_cancelled": label["label"] == "skip"}]}


def _result(kind: str, control: str, of: str, value: Row) -> Row:
    return {"id": control, "type": kind, "from_name": control, "to_name": of, "value": value}


def _results(annotation: object) -> list[Row]:
    results = annotation.get("result") if isinstance(annotation, dict) else None
    if not isinstance(results, list) or not all(
        isinstance(each, dict) and holds(each, "type") and isinstance(each.get("value"), dict) for each in results
    ):
        raise Unmapped("annotations", "has one that is none of Label Studio's, with a list of results")
    return results


def _label(annotation: Row, results: list[Row], names: tuple[str, str]) -> str:
    if annotation.get("was_cancelled"):
        return "skip"
    selected = [each["value"].get("selected") for each in results if each["type"] == "pairwise"]
    told = [each["value"].get("choices", []) for each in results if each["type"] == "choices"]
    choices = [str(choice) for each in told for choice in each]
    others = {str(each["type"]) for each in results if each["type"] not in ("pairwise", "choices", "textarea")}
    labels = [_SELECTED.get(each, "") if isinstance(each, str) else "" for each in selected]
    if not selected:
        labels = [side for choice in choices if (side := preferred(choice, names))]
        labels = labels or ([""] if choices or others else ["tie"])
    if len(labels) != 1 or not labels[0]:
        found = ", ".join(map(str, (*selected, *choices, *sorted(others))))
        raise Unmapped("annotations", f"has one that does not tell which of {' and '.join(names)} is better: {found}")
    return labels[0]


def _texts(results: list[Row], control: str | None = None) -> str:
    """What was written into one text area, or into all but that of the annotator's name."""
    areas = [each for each in results if each["type"] == "textarea"]
    chosen = [each for each in areas if (each.get("from_name") == _ANNOTATOR) is (control == _ANNOTATOR)]
    return "\n".join(text for each in chosen for text in each["value"].get("text", []) if isinstance(text, str))


def _user(who: object) -> str | None:
    """A user, who is a number, or a record with an address."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return None if who is None else str(who)


LABEL_STUDIO = Format(
    "Label Studio's pairs",
    "comparisons",
    "data with prompt, answer1 and answer2, and annotations of a Pairwise tag",
    _fits,
    _rows_of,
    why_none=NOBODY_PREFERRED,
)
