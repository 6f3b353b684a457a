"""A registry lists what it has for a name that it has not."""

import pytest

from explainer.errors import Registry, UserError


def test_a_registry_is_a_dict_that_names_what_it_knows() -> None:
    pets = Registry("pet", {"cat": 9, "dog": 1})
    assert pets["cat"] == 9
    assert list(pets) == ["cat", "dog"]
    assert pets.get("cow") is None
    with pytest.raises(UserError, match=r"^no pet 'cow'; known: cat, dog$"):
        pets["cow"]
    with pytest.raises(ValueError, match="'cow'"):  # bad input to Python too
        pets.check("cat", "cow")
    pets.check("cat", "dog")
