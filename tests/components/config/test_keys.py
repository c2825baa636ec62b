"""What was meant by a key that does not exist."""

from __future__ import annotations

import pytest

from components.config.keys import did_you_mean


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("sead", "did you mean seed?"),
        ("policy_gradient.learnin_rate", "did you mean policy_gradient.learning_rate?"),
        ("polcy_gradient.kl_coef", "did you mean policy_gradient.kl_coef?"),
        ("language_model.layers", "did you mean language_model.scratch.layers?"),
        ("language_modle.scratch.layers", "did you mean language_model.scratch.layers?"),
        ("judge.memebrs", "did you mean judge.members?"),
        ("zzz", ""),
        ("zzz.zzz", ""),
    ],
)
def test_the_nearest_key(key: str, meant: str) -> None:
    assert did_you_mean(key) == meant
