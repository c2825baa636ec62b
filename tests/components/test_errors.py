"""The one family of errors."""

from __future__ import annotations

import pickle

import pytest

from components import errors
from components.errors import ConfigError, DataError, ProximalError


def test_a_message_says_all_that_is_known_and_no_more() -> None:
    error = DataError("a row is bad", where="prompts.jsonl, line 3", expected="text", found="7", do="mend it")
    assert str(error) == (
        "a row is bad\n  where:      prompts.jsonl, line 3\n  expected:   text\n  found:      7\n  what to do: mend it"
    )
    assert str(ConfigError("nothing more is known", where="here")) == "nothing more is known\n  where:      here"


@pytest.mark.parametrize(
    "kind", [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ProximalError)]
)
def test_every_kind_survives_the_way_between_processes(kind: type[ProximalError]) -> None:
    error = kind("what", where="where", expected="expected", found="found", do="do")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) and vars(again) == vars(error)
