"""The reports of the bus on Redis, besides those of every bus."""

from __future__ import annotations

from pabal.ports.telemetry import Report

__all__ = [
    "ConnectionLost",
    "EventsLost",
    "GroupRestored",
    "PartitionGivenUp",
    "PartitionLost",
    "PartitionReport",
    "PartitionTaken",
]


class PartitionReport(Report, frozen=True, gc=False):
    """The base of reports about a partition; ``subscription`` is empty, since they concern all of them."""

    partition: int


class PartitionTaken(PartitionReport, frozen=True, gc=False):
    """This process handles a partition from now on; ``taken_from`` is its dead previous owner, if any."""

    severity = "info"

    taken_from: str


class PartitionGivenUp(PartitionReport, frozen=True, gc=False):
    """This process has handed a partition over, with all progress saved."""

    severity = "info"


class PartitionLost(PartitionReport, frozen=True, gc=False):
    """This process has let a partition go without saving, because another process has it or may have it.

    The latter is the case when the server has received no heartbeat for the length of the lease. The other
    process repeats deliveries whose progress was not saved.
    """


class EventsLost(PartitionReport, frozen=True, gc=False):
    """Events ``first`` to ``last`` disappeared from the server before the group had finished them."""

    severity = "error"

    first: int
    last: int


class GroupRestored(PartitionReport, frozen=True, gc=False):
    """The server had forgotten the group's progress, and this process has restored it from memory."""


class ConnectionLost(Report, frozen=True, gc=False):
    """The connection to the server broke, or could not be made at the start; attempts to make it go on."""

    error: BaseException
