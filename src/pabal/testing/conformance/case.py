"""Cases: how they are written, collected and run, and how they report a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any, Literal, TypeVar

import msgspec

from pabal.ports.storage import Capabilities, EventStorage

StorageFactory = Callable[[], EventStorage]
Run = Callable[[StorageFactory], Awaitable[None]]
Need = Literal["persistent", "shared", "versioned", "searchable", "controllable", "aggregates", "inspectable"]
X = TypeVar("X", bound=BaseException)
T = TypeVar("T")

SECONDS = 60.0
"""A case that takes longer fails."""


class Case(msgspec.Struct, frozen=True):
    """One thing that a backend must do; ``await case(factory)`` runs it on storages from the factory.

    ``port`` is one of ``PORTS``, ``sentence`` says what must hold, and ``needs`` names the capabilities that
    a backend must declare for the case to apply.
    """

    port: str
    name: str
    sentence: str
    needs: tuple[Need, ...]
    run: Run

    def is_for(self, capabilities: Capabilities) -> bool:
        """Return whether a backend with these capabilities must pass the case."""
        return all(getattr(capabilities, need) for need in self.needs)

    async def __call__(self, factory: StorageFactory) -> None:
        """Run the case. Raises AssertionError if the backend behaves differently, or hangs for 60 s."""
        try:
            async with asyncio.timeout(SECONDS):
                await self.run(factory)
        except TimeoutError as error:
            raise AssertionError(f"{self}: not over after {SECONDS} s") from error
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"{self}: {self.sentence} It ended with {error!r}") from error

    def __str__(self) -> str:
        """Return the port and the name of the case, as words."""
        return f"{self.port}: {self.name.replace('_', ' ')}"


def case(*needs: Need) -> Callable[[Run], Run]:
    """Mark a function of a port's module as a case, and name the capabilities it needs."""

    def mark(run: Run) -> Run:
        run.needs = needs  # type: ignore[attr-defined]
        return run

    return mark


def cases_of(port: str, module: ModuleType) -> list[Case]:
    """Return the cases of a module in the order they are written; the module's ``NEEDS`` apply to all."""
    always: tuple[Need, ...] = getattr(module, "NEEDS", ())
    return [
        Case(port, name, (run.__doc__ or "").strip(), (*always, *run.needs), run)
        for name, run in vars(module).items()
        if hasattr(run, "needs")
    ]


@asynccontextmanager
async def opened(factory: StorageFactory) -> AsyncIterator[Any]:
    """Open a storage and close it at the end."""
    storage = factory()
    try:
        yield storage
    finally:
        await storage.aclose()


def check(condition: object, what: str) -> None:
    """Raise AssertionError unless a condition holds; an assert statement would vanish under ``python -O``."""
    if not condition:
        raise AssertionError(what)


def expect_equal(actual: Any, expected: Any, what: str) -> None:
    """Raise AssertionError unless two values are equal."""
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def expect_count(count: int, found: Sequence[T], what: str) -> Sequence[T]:
    """Return ``found``. Raises AssertionError unless it holds ``count`` elements."""
    expect_equal(len(found), count, f"how many {what} there are")
    return found


async def expect_error(kind: type[X], call: Awaitable[Any], what: str) -> X:
    """Await a call that must raise an error of ``kind``, and return the error."""
    try:
        result = await call
    except kind as error:
        return error
    except Exception as error:
        raise AssertionError(f"{what}: expected {kind.__name__}, got {error!r}") from error
    raise AssertionError(f"{what}: expected {kind.__name__}, but it returned {result!r}")
