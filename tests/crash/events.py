"""What the laboratory's processes publish."""

from __future__ import annotations

from typing import ClassVar

from pabal import DomainEvent


class Step(DomainEvent):
    """Number ``number`` of what is published under ``key``; numbers of a key only grow."""

    event_type: ClassVar[str] = "crash.step"
    aggregate_type: ClassVar[str] = "walk"
    key: str
    number: int
    filler: str = ""

    @property
    def aggregate_id(self) -> str:
        return self.key
