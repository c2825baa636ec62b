"""Params files with other values at dotted keys."""

from __future__ import annotations

import copy
from typing import Any

Values = dict[str, Any]
ABSENT = object()


def changed(values: Values, changes: Values) -> Values:
    """A copy with other values at dotted keys; ABSENT removes the key."""
    result = copy.deepcopy(values)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place = result
        for section in sections:
            place = place[section]
        if value is ABSENT:
            del place[key]
        else:
            place[key] = value
    return result
