"""Errors: one base class to catch, and names that come with the nearest known one."""

import inspect

import pytest

from latlas.base import errors
from latlas.base.errors import LatlasError, UnknownNameError, unknown_name


def test_every_mistake_of_a_user_can_be_caught_as_one_class() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert len(kinds) >= 10
    assert all(issubclass(kind, LatlasError) for kind in kinds)
    assert not any(issubclass(kind, (ValueError, OSError, RuntimeError)) for kind in kinds), "programming errors stay apart"


@pytest.mark.parametrize(("typed", "meant"), [("mnits", "mnist"), ("fashon-mnist", "fashion-mnist"), ("avatar", "avatars")])
def test_a_slip_of_the_finger_is_answered_with_the_name_that_was_meant(typed: str, meant: str) -> None:
    error = unknown_name("data set", typed, ["mnist", "fashion-mnist", "avatars"])
    assert isinstance(error, UnknownNameError)
    assert str(error) == f"Unknown data set {typed!r}. Did you mean {meant!r}? Known: avatars, fashion-mnist, mnist."


def test_a_name_like_no_other_gets_no_guess_but_the_whole_list() -> None:
    assert str(unknown_name("model", "zzz", iter(["b", "a"]))) == "Unknown model 'zzz'. Known: a, b."


def test_a_hint_stands_last() -> None:
    assert str(unknown_name("model", "zzz", ["a"], hint="Or give a folder.")).endswith("Known: a. Or give a folder.")
