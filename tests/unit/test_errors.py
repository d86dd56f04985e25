"""Each error name is one class, and finds its way back from a worker or a job's record."""

from __future__ import annotations

import pytest

from mvirt_zfs_dbus import errors
from mvirt_zfs_dbus.errors import Error
from mvirt_zfs_dbus.names import ErrorName

CLASSES = [
    found
    for name, found in vars(errors).items()
    if name[0] != "_" and isinstance(found, type) and issubclass(found, Error)
]
GROUPS = [errors.HasDependents, errors.ImportFailed]


@pytest.mark.parametrize("name", ErrorName)
def test_an_error_name_becomes_the_class_that_has_it(name: ErrorName) -> None:
    error = errors.from_name(name, "what was wrong")
    assert error.name is name
    assert type(error) not in GROUPS
    assert (error.message, str(error)) == ("what was wrong", "what was wrong")


def test_every_error_name_has_one_class_and_the_groups_have_none_of_their_own() -> None:
    own = [found.name for found in CLASSES if found not in GROUPS]
    assert sorted(own) == sorted(ErrorName)
    assert all(group.name is ErrorName.FAILED for group in GROUPS)


@pytest.mark.parametrize("found", CLASSES, ids=lambda found: found.__name__)
def test_a_class_is_called_as_its_error_is(found: type[Error]) -> None:
    if found not in (Error, *GROUPS):
        assert found.name.rpartition(".")[2] == found.__name__


@pytest.mark.parametrize("name", ["", "org.example.Unheard", "NotFound"])
def test_an_unknown_error_name_is_a_plain_failure(name: str) -> None:
    error = errors.from_name(name, "what")
    assert (type(error), error.name, error.message) == (Error, ErrorName.FAILED, "what")


def test_the_tree_at_the_top_of_the_module_names_every_class() -> None:
    assert errors.__doc__
    for found in CLASSES:
        assert found.__name__ in errors.__doc__


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (errors.WouldShrink, errors.InvalidSize),
        (errors.InvalidSize, errors.InvalidArgs),
        (errors.HasClones, errors.HasDependents),
        (errors.Truncated, errors.ImportFailed),
        (errors.InteractiveAuthorizationRequired, errors.AccessDenied),
    ],
)
def test_who_catches_the_wide_error_catches_the_narrow_one(
    narrow: type[Error], wide: type[Error]
) -> None:
    with pytest.raises(wide):
        raise narrow("what")
