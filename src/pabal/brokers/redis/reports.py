"""What the bus on Redis reports besides what every bus does."""

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
    """Be the base of reports on a partition; ``subscription`` is empty, for all of a group are concerned."""

    partition: int


class PartitionTaken(PartitionReport, frozen=True, gc=False):
    """Tell that this process handles a partition from now on; ``taken_from`` names a dead owner, if any."""

    severity = "info"

    taken_from: str


class PartitionGivenUp(PartitionReport, frozen=True, gc=False):
    """Tell that this process handed a partition over, with everything saved."""

    severity = "info"


class PartitionLost(PartitionReport, frozen=True, gc=False):
    """Tell that a partition was let go unsaved: another process has it, or may after a lease of silence.

    What was not saved is done again there.
    """


class EventsLost(PartitionReport, frozen=True, gc=False):
    """Tell that events are gone from the server before the group finished them: ``first`` to ``last``."""

    severity = "error"

    first: int
    last: int


class GroupRestored(PartitionReport, frozen=True, gc=False):
    """Tell that the server had forgotten how far the group has come.

    It was put back from what this process knows.
    """


class ConnectionLost(Report, frozen=True, gc=False):
    """Tell that the connection to the server broke; it is made again with growing pauses."""

    error: BaseException
