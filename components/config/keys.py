"""The dotted keys that params may have, and the one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from components.config.base import Section
from components.config.params import Params


def dotted_keys() -> list[str]:
    """Every key with a name of its own, sections and values, in the order of their classes.

    What has names of the user's choice is named as a whole: `cycles`, `data.rubric_options`.
    """
    return list(_below(Params, ""))


def did_you_mean(key: str) -> str:
    """A question that names the nearest keys that exist, or nothing where none is near."""
    section, _, name = key.rpartition(".")
    keys = dotted_keys()
    beside = {_last(other): other for other in keys if other.rpartition(".")[0] == section}
    near = [beside[match] for match in difflib.get_close_matches(name, beside, n=1)]
    near = near or difflib.get_close_matches(key, [other for other in keys if _last(other) == name], n=1, cutoff=0.4)
    near = near or difflib.get_close_matches(key, keys, n=1, cutoff=0.8)
    return f"did you mean {near[0]}?" if near else ""


def sections() -> list[type[Section]]:
    """Every class that describes a part of params, the whole among them."""
    found: list[type[Section]] = [Params]
    for section in found:
        inner = (each for field in section.model_fields.values() for each in _sections_within(field.annotation))
        found += [each for each in dict.fromkeys(inner) if each not in found]
    return found


def _below(section: type[Section], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        if inner := section_in(field.annotation):
            yield from _below(inner, f"{prefix}{name}.")


def section_in(annotation: Any) -> type[Section] | None:
    """The section that a field holds; None where it holds a value, or several by names of the user's choice."""
    return None if get_origin(annotation) is dict else next(iter(_sections_within(annotation)), None)


def _sections_within(annotation: Any) -> list[type[Section]]:
    """All that a field may hold, however deep: a union, a mapping, a mapping of unions."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [each for part in get_args(annotation) for each in _sections_within(part)]


def _last(key: str) -> str:
    return key.rpartition(".")[2]
