"""One test for many things of a kind: it checks them all and reports every deviation at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def deviations(things: Mapping[str, Any], check: Callable[[Any], None]) -> dict[str, str]:
    """Name -> what the check has against that thing, for all that it has something against."""
    found = {}
    for name, thing in things.items():
        try:
            check(thing)
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def for_all(things: Callable[[], Mapping[str, Any]]) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Makes a check of one thing a test of all of them; `things` is called when the test runs."""

    def decorate(check: Callable[[Any], None]) -> Callable[[], None]:
        def test() -> None:
            everything = things()
            assert everything, "there is nothing to check"
            found = deviations(everything, check)
            assert not found, "\n".join(f"{name}: {text}" for name, text in found.items())

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate
