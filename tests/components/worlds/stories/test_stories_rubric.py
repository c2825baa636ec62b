"""The warmth of stories, counted by hand."""

from __future__ import annotations

from components.worlds.stories.rubric import reward, score


def test_different_feelings_count_and_are_enough_at_four() -> None:
    assert score("", "The cat sat on a mat.")["warmth"] == 0.0
    assert score("", "Tim was happy. He smiled.")["warmth"] == 0.5
    assert score("", "Tim was happily happy in his happiness.")["warmth"] == 0.25
    assert score("", "They were glad, laughed, hugged, thanked and loved their friends.")["warmth"] == 1.0


def test_words_that_begin_alike_are_no_feelings() -> None:
    assert score("", "A huge funnel on a kindle.")["warmth"] == 0.0


def test_what_was_said_before_is_not_fresh() -> None:
    # seven words are five runs of three; "he was happy" comes twice among the runs of the second
    assert score("", "one two three four five six seven")["freshness"] == 1.0
    said = score("", "he was happy he was happy")  # runs: hwh, wha... of four, the first and the last are alike
    assert said["freshness"] == 0.75
    assert said["gold"] == 0.25 * 0.75


def test_a_reward_is_the_gold_of_each() -> None:
    assert reward(["a", "b"], ["Tim was happy today", ""]) == [0.25, 0.0]
