"""Options that ``subscribe`` rejects, at once and by name."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from pabal import InMemoryEventBus, RetryPolicy
from pabal.errors import InvalidHandlerError, SubscriptionError, UsageError
from tests.bus.samples import Moved, Unknown
from tests.bus.support import ONE_ATTEMPT, Backend


def three_parameters(event: Any, context: Any, more: Any) -> None: ...


def required_keyword(event: Any, *, more: Any) -> None: ...


def no_parameters() -> None: ...


async def asynchronous(event: Any) -> bool:
    """Return a coroutine, which is true whatever it would return."""
    return False


class NotAHandler:
    handle = "text"


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (no_parameters, "takes no event"),
        (three_parameters, "also needs more"),
        (required_keyword, "also needs more"),
        (42, "not callable"),
        (None, "not callable"),
        (NotAHandler(), "not callable"),
        (NotAHandler, "it is a class, pass an instance"),
    ],
)
async def test_subscribe_rejects_a_handler_that_cannot_take_an_event(
    memory: Backend, handler: Any, message: str
) -> None:
    """Otherwise the mistake would show only with the first event, as a dead letter."""
    bus = memory.make_bus()
    with pytest.raises(InvalidHandlerError, match=message):
        bus.subscribe(Moved, handler)
    assert bus.get_statistics()["subscription_count"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": "high"}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"retry_count": -1}, "retry_count"),
        ({"retry_count": 1.5}, "retry_count"),
        ({"retry_count": 1, "retry": ONE_ATTEMPT}, "not both"),
        ({"retry": 3}, "retry_count"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"where": "n > 1"}, "where"),
        ({"where": asynchronous}, "where"),
        ({"ordering": "by piece"}, "ordering"),
        ({"ordering": asynchronous}, "ordering"),
        ({"on_exhausted": "explode"}, "on_exhausted"),
        ({"start": "yesterday"}, "start"),
        ({"start": -1}, "start"),
        ({"start": datetime(2026, 1, 1)}, "naive"),
        ({"batch": 0}, "batch"),
        ({"batch": True}, "batch"),
        ({"batch": 10, "on_exhausted": "park_key"}, "park_key"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": 7}, "name"),
        ({"start": "beginning"}, "needs a log"),
    ],
)
async def test_subscribe_rejects_invalid_options_by_name(
    memory: Backend, options: dict[str, Any], message: str
) -> None:
    """A silently misread option would change delivery in production; the error must name it."""

    async def note(event: Any) -> None: ...

    bus = memory.make_bus()
    with pytest.raises(SubscriptionError, match=message):
        bus.subscribe(Moved, note, **options)
    assert bus.get_statistics()["subscription_count"] == 0


@pytest.mark.parametrize(
    "selector", [42, None, (), "", (Moved, "piece.*"), Unknown, (Unknown, Moved), Moved("x")]
)
async def test_subscribe_rejects_an_invalid_selector(memory: Backend, selector: Any) -> None:
    """A selector that can never match would make a subscription that waits for ever."""

    async def note(event: Any) -> None: ...

    bus = memory.make_bus()
    with pytest.raises(SubscriptionError):
        bus.subscribe(selector, note)


async def test_on_without_an_event_class_is_rejected(memory: Backend) -> None:
    """``@bus.on`` would replace the handler by a decorator, and no event ever reach it."""
    bus = memory.make_bus()
    with pytest.raises(SubscriptionError, match="pass an event class"):

        @bus.on  # type: ignore[call-overload]
        async def note(event: Any) -> None: ...


def test_a_path_in_place_of_a_storage_is_rejected() -> None:
    """The bus would fail at its start, with an AttributeError about a str."""
    with pytest.raises(UsageError, match=r"create_default_event_bus\(path\)"):
        InMemoryEventBus("orders.db")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_attempts": "3"}, "max_attempts"),
        ({"max_attempts": 2.5}, "max_attempts"),
        ({"base_delay": float("nan")}, "base_delay"),
        ({"max_delay": float("nan")}, "max_delay"),
        ({"multiplier": float("nan")}, "multiplier"),
        ({"retry_on": ValueError}, "retry_on"),
        ({"retry_on": ("ValueError",)}, "retry_on"),
        ({"never": ValueError}, "never"),
    ],
)
def test_a_retry_policy_rejects_values_of_the_wrong_kind(values: dict[str, Any], message: str) -> None:
    """The first use of the policy is in a worker, with a failed delivery: too late for an error."""
    with pytest.raises(SubscriptionError, match=message):
        RetryPolicy(**values)
