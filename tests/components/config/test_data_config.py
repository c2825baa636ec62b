"""The rubric's name and its files belong together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from components.config import Data

NAME = "house.rules.worth:of"


@pytest.mark.parametrize("files", ["house/rules/worth.py", "house/rules/worth", "house/rules", "house"])
def test_the_rubrics_files_are_its_module_or_a_folder_that_it_is_in(files: str) -> None:
    assert Data(columns={}, rubric=NAME, rubric_options={}, rubric_files=files).rubric_files == files


@pytest.mark.parametrize("files", [".", "house/rules/other.py", "house/rule", "worth.py", "/house"])
def test_other_files_would_leave_a_change_of_the_rubric_unseen(files: str) -> None:
    with pytest.raises(ValidationError, match=r"house/rules/worth\.py or a folder that it is in"):
        Data(columns={}, rubric=NAME, rubric_options={}, rubric_files=files)


def test_without_a_rubric_there_are_no_options_for_it() -> None:
    assert Data(columns={}, rubric=None, rubric_options={}, rubric_files="anything").rubric is None
    with pytest.raises(ValidationError, match="options belong to a rubric"):
        Data(columns={}, rubric=None, rubric_options={"graph_seed": 1}, rubric_files="anything")


@pytest.mark.parametrize("name", ["helpdesk", "none", "a:", ":b", "a.b:c.d", "a/b:c", "a b:c", "a..b:c"])
def test_the_form_is_module_and_function(name: str) -> None:
    with pytest.raises(ValidationError, match="rubric"):
        Data(columns={}, rubric=name, rubric_options={}, rubric_files="a")
