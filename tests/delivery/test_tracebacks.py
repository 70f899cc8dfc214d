"""The text of an error equals that of the standard library, however the error came about."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import pytest
from tests.bus.samples import Moved

from pabal import InMemoryEventBus
from pabal.delivery import tracebacks
from pabal.delivery.tracebacks import traceback_text


def _plain() -> None:
    raise ValueError("two\nlines")


def _with_note() -> None:
    error = LookupError("gone")
    error.add_note("look elsewhere")
    raise error


def _with_cause() -> None:
    try:
        _plain()
    except ValueError as error:
        raise ConnectionError("because of it") from error


def _with_context() -> None:
    try:
        _plain()
    except ValueError:
        raise ConnectionError("meanwhile")  # noqa: B904 - the context is what is tested


def _from_none() -> None:
    try:
        _plain()
    except ValueError:
        raise ConnectionError("alone") from None


def _group() -> None:
    raise ExceptionGroup("both", [ValueError(1), LookupError(2)])


def _syntax() -> None:
    compile("a b", "text", "exec")


def _recursive() -> None:
    _recursive()


@pytest.mark.parametrize(
    "fail", [_plain, _with_note, _with_cause, _with_context, _from_none, _group, _syntax, _recursive]
)
def test_the_traceback_text_equals_that_of_the_standard_library(fail: Callable[[], None]) -> None:
    """A dead letter would not say what went wrong, or where."""
    for _ in range(2):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
            fail()
        assert traceback_text(caught.value) == "".join(traceback.format_exception(caught.value))


def test_an_error_that_was_never_raised_has_a_text() -> None:
    """A future may be given an error that was never raised."""
    assert traceback_text(ValueError("made, not raised")) == "ValueError: made, not raised\n"


def test_the_number_of_cached_stacks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that is generated for each call would fill the memory with its tracebacks."""
    monkeypatch.setattr(tracebacks, "_known", {})
    for number in range(1000):
        code = compile(f"raise ValueError({number})", f"generated {number}", "exec")
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - generated, too
            exec(code)
        assert traceback_text(caught.value) == "".join(traceback.format_exception(caught.value))
    assert len(tracebacks._known) <= tracebacks._KNOWN_MOST


class _LockedLoader:
    """A loader whose source cannot be read, for example because its archive was replaced."""

    def get_source(self, name: str) -> str:
        raise RuntimeError("the archive is locked")


async def test_an_error_whose_traceback_cannot_be_formatted_is_parked() -> None:
    """The worker would end in the middle: the delivery would never finish, and ``drain`` would hang."""
    loader = _LockedLoader()
    module: dict[str, Any] = {
        "__name__": "archived",
        "__loader__": loader,
        "__spec__": ModuleSpec("archived", None, origin="archived"),
    }
    module["__spec__"].loader = loader
    code = compile("async def handle(event): raise ValueError('no')", "archived/handlers.py", "exec")
    exec(code, module)
    bus = InMemoryEventBus()
    bus.subscribe(Moved, module["handle"], name="archived", retry_count=0)
    async with bus:
        await bus.publish(Moved("rook"))
        await bus.drain(10)
        (letter,) = await bus.dead_letters.list()
    assert letter.attempts[0].traceback == (
        "(no traceback: formatting it raised RuntimeError('the archive is locked'))\nValueError: no\n"
    )
