"""The tables hold what the rubric and the training rely on."""

from __future__ import annotations

import re
from itertools import permutations

from components.worlds.helpdesk import world
from components.worlds.helpdesk.rubric import read_response

ACTS = {
    "admission": world.ADMITTING,
    "next_step": world.NEXT_STEPS,
    "refusal": world.REFUSING,
    "alternative": world.ALTERNATIVES,
    "compliance": world.COMPLYING,
    "danger": world.DANGEROUS,
    "rudeness": world.RUDE,
    "certainty": world.CERTAIN,
    "hedge": world.HEDGING,
    "courtesy": world.COURTESIES,
    "opener": world.OPENERS,
    "detail": world.DETAILS,
}


def test_twelve_devices_with_four_known_faults_each() -> None:
    assert len(world.DEVICES) == 12
    assert {len(faults) for faults in world.REMEDY_OF.values()} == {4}
    assert len(world.UNKNOWN_FAULTS) == len(world.HARMFUL_REQUESTS) == 12


def test_neither_device_nor_fault_alone_tells_the_remedy() -> None:
    assert 16 <= len(world.REMEDIES) <= 24
    assert set(world.SPECIAL_REMEDY) <= set(world.KNOWN_PAIRS)
    for (device, fault), remedy in world.SPECIAL_REMEDY.items():
        assert world.REMEDY_OF[device][fault] == remedy != world.USUAL_REMEDY[fault]
    for device, faults in world.REMEDY_OF.items():
        assert len(set(faults.values())) == 4, f"{device}: one remedy serves two faults"


def test_no_phrase_hides_in_another() -> None:
    """The rubric finds phrases by text: one inside another would be read as both."""
    for phrases in (world.REMEDIES, world.UNKNOWN_FAULTS, [fault for _, fault in set(world.KNOWN_PAIRS)]):
        for one, other in permutations(set(phrases), 2):
            assert f" {one} " not in f" {other} "


def test_each_sentence_is_read_as_its_own_act_and_no_other() -> None:
    for act, sentences in ACTS.items():
        for sentence in sentences:
            assert re.fullmatch(r"[A-Z][a-z ',:]+\.", sentence), sentence
            reading = read_response(sentence)
            assert dict(reading.said) == {act: 1}, sentence
            assert set(reading.traces) <= {act}, sentence
            assert reading.fragments == 0
    for template in world.SAYING_REMEDY:
        reading = read_response(template.format(remedy="swap the fuse"))
        assert dict(reading.said) == {"remedy": 1}
        assert reading.remedies_said == reading.remedies_traced == {"swap the fuse"}
