"""The events that the laboratory's processes publish."""

from __future__ import annotations

from typing import ClassVar

from pabal import DomainEvent


class Step(DomainEvent):
    """An event published under ``key``; the numbers of a key only increase."""

    event_type: ClassVar[str] = "crash.step"
    aggregate_type: ClassVar[str] = "walk"
    key: str
    number: int
    filler: str = ""

    @property
    def aggregate_id(self) -> str:
        return self.key
