"""The shipped params with changes that have to be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from config_changes import Values, changed

from components.config import parse_params
from components.errors import ConfigError


@pytest.fixture
def refused(shipped: Values) -> Callable[..., ConfigError]:
    """The error that the shipped params give with changes."""

    def load(**changes: Any) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            parse_params(changed(shipped, changes), "params.yaml")
        return caught.value

    return load
