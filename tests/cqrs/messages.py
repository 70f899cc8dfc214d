"""Commands and a query that the tests of the buses share."""

from __future__ import annotations

from pabal.cqrs import Command, Query


class Add(Command[int]):
    left: int
    right: int

    def validate(self) -> None:
        if self.left < 0:
            raise ValueError("left is negative")


class Multiply(Command[int]):
    left: int
    right: int


class CountOf(Query[int]):
    name: str


class Numbers:
    def __init__(self) -> None:
        self.known = {"apples": 3}
