"""``Command`` and ``Query``: requests to the application, as immutable values."""

from __future__ import annotations

from typing import Generic, TypeVar, dataclass_transform

import msgspec

from pabal.domain.ids import new_event_id

R = TypeVar("R")


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Command(msgspec.Struct, Generic[R], frozen=True, kw_only=True, repr_omit_defaults=True):
    """Base class of an application's commands; ``R`` is the type of the result.

    Fields are positional or keyword. ``command_id``, keyword-only text, identifies this one command: where
    the bus uses ``Idempotency``, a command sent again under the same id is not handled again. It defaults to
    a new UUID. A command bus accepts any class; this one adds the id, and tells type checkers what
    ``execute`` returns.

    Commands are stored under the class's qualified name, or its ``command_type`` if it has one: set that
    before you rename the class.

    >>> class OpenAccount(Command[str]):
    ...     owner: str
    >>> OpenAccount("kim", command_id="0192f0c1-0000-7000-8000-000000000001").owner
    'kim'
    """

    command_id: str = msgspec.field(default_factory=new_event_id)


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Query(msgspec.Struct, Generic[R], frozen=True):
    """Base class of an application's queries; ``R`` is the type of the answer.

    A query changes nothing. Its fields are positional or keyword. A query bus accepts any class; this one
    tells type checkers what ``ask`` returns.

    >>> class CountAccounts(Query[int]):
    ...     owner: str
    >>> CountAccounts("kim")
    CountAccounts(owner='kim')
    """


def command_type_of(cls: type) -> str:
    """Return the name under which commands of a class are stored: its ``command_type``, or its own name."""
    return str(getattr(cls, "command_type", cls.__qualname__))
