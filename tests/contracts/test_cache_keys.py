"""Files that the recipe names are part of what their stage is found again by, with what is in them."""

from __future__ import annotations

from edgetune.pipeline.training import FILES
from edgetune.recipe import keys

ELSEWHERE = {"data.validation", "data.test", "augment.unlabelled", "compress.unlabelled"}  # of prepare, augment and teach


def test_every_file_that_a_recipe_names_is_in_a_key() -> None:
    named = {name for name, told in keys().items() if told.startswith("file ")}
    assert named | {"augment.thesaurus"} == ELSEWHERE | set(FILES)
