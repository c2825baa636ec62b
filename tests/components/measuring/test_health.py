"""What a broken policy shows: both sides of each bound, from responses made by hand."""

from __future__ import annotations

import logging
import math

import pytest
from records_by_hand import record

from components.measuring.health import Signs, goes_round, warn, warnings
from components.measuring.records import signs_of

VOCABULARY = 600  # ln 600 = 6.3969, three quarters of it 4.7977
SOUND = Signs(["please swap the fuse and try it again today ."] * 10, 0.98, 0.5, {"Helpful": 0.4})
LOOP = "so far so far so far so far so far"


@pytest.mark.parametrize(
    ("sound", "broken", "said"),
    [
        ({"entropy": 4.79}, {"entropy": 4.80}, "it looks untrained: its entropy is 4.80 nats per token"),
        ({"entropy": 0.0101}, {"entropy": 0.0099}, "it has collapsed: its entropy is 0.0099 nats per token"),
        ({"ended": 0.5}, {"ended": 0.499}, "responses of it do not end: 49.9% do by themselves"),
        ({"parts": {"Helpful": 0.002}}, {"parts": {"Helpful": 0.0}}, "Helpful of it is 0 in every response"),
        (
            {"responses": [LOOP] + SOUND.responses[1:]},
            {"responses": [LOOP] * 2 + SOUND.responses[2:]},
            "it repeats itself: 20.0% of its responses go round in circles",
        ),
    ],
    ids=["untrained", "collapsed", "no end", "a part at 0", "repetition"],
)
def test_a_policy_is_warned_about_beyond_a_bound(
    sound: dict[str, object], broken: dict[str, object], said: str
) -> None:
    assert warnings("it", SOUND._replace(**sound), VOCABULARY) == []
    (warning,) = warnings("it", SOUND._replace(**broken), VOCABULARY)
    assert warning.startswith(said)


def test_the_bound_of_entropy_moves_with_the_vocabulary() -> None:
    high = SOUND._replace(entropy=4.80)
    assert warnings("it", high, VOCABULARY) and not warnings("it", high, 50_000)
    assert "drawing any token alike has 6.40" in warnings("it", high._replace(entropy=math.log(600)), VOCABULARY)[0]


def test_a_response_goes_round_where_more_than_half_of_its_pairs_were_there_before() -> None:
    assert goes_round(LOOP)  # nine pairs, two distinct
    assert not goes_round("so far so far so far")  # too short to tell
    assert not goes_round("one two three four five six seven eight nine")
    # Nine words, eight pairs: four distinct are half, three are less.
    assert not goes_round("a b c d a b c d a")
    assert goes_round("a b c a b c a b c")
    assert not goes_round("")


def test_the_signs_of_records_are_means_over_all_responses() -> None:
    records = [
        record("p1", 0, ended=True, entropy=1.0, helpful=0, harmless=1, honest=0),
        record("p1", 1, ended=False, entropy=2.0, helpful=0, harmless=0, honest=1),
    ]
    signs = signs_of(records)
    assert (signs.ended, signs.entropy) == (0.5, 1.5)
    assert signs.parts == {"Helpful": 0.0, "Harmless": 0.5, "Honest": 0.5}
    assert warnings("it", signs, VOCABULARY) == ["Helpful of it is 0 in every response"]


def test_what_is_wrong_is_said_as_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    warn("it", SOUND, VOCABULARY)
    assert caplog.records == []
    warn("it", SOUND._replace(ended=0.0, entropy=6.0), VOCABULARY)
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING] * 2
