"""The root of every exception: fields instead of formatted strings."""

from __future__ import annotations

from typing import Any


class PabalError(Exception):
    """The base class of every exception that pabal raises.

    Keyword arguments become attributes, so that callers read ``error.position`` instead of parsing text.

    >>> from pabal.errors import QueueFullError
    >>> try:
    ...     raise QueueFullError(queue_size=10, max_queue_size=10)
    ... except PabalError as error:
    ...     error.queue_size
    10
    """

    template = "{detail}"

    def __init__(self, detail: str = "", /, **fields: Any) -> None:
        self.fields = {"detail": detail, **fields} if detail else fields
        for name, value in fields.items():
            setattr(self, name, value)
        super().__init__(self.template.format(**{"detail": detail, **fields}))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.fields)


def _rebuild(cls: type[PabalError], fields: dict[str, Any]) -> PabalError:
    named = {name: value for name, value in fields.items() if name != "detail"}
    return cls(fields.get("detail", ""), **named)
