"""The names of everything kept on the server."""

from __future__ import annotations

from functools import cached_property

from pabal.delivery.tracebacks import storable
from pabal.errors import UsageError


def check_name(option: str, text: str) -> None:
    """Refuse what cannot stand in the name of a key, or would end its hash tag. Raises UsageError."""
    if not isinstance(text, str) or not text.strip() or len(text) > 200 or set(text) & set("{}\0"):
        raise UsageError(f"{option} is {text!r}; it must be text of 1 to 200 characters without braces")
    if storable(text) != text:
        raise UsageError(f"{option} is {text!r}; it holds a lone surrogate, which no server can keep")


class LogKeys:
    """Name what belongs to one log. All names share one hash tag, so a cluster keeps them on one node."""

    def __init__(self, namespace: str) -> None:
        self.base = f"{{{namespace}}}:"
        self.meta = self.base + "meta"
        self.groups = self.base + "groups"
        self.schedule = self.base + "schedule"
        self.scheduled = self.base + "scheduled"
        self.parts = self.base + "part:"

    def log(self, partition: int) -> str:
        """Return the stream that holds a partition's events."""
        return f"{self.base}log:{partition}"

    def part(self, partition: int) -> str:
        """Return the hash with a partition's head."""
        return f"{self.parts}{partition}"

    def marks(self, partition: int) -> str:
        """Return the sorted set of every subscription's watermark."""
        return f"{self.base}marks:{partition}"

    def held(self, partition: int) -> str:
        """Return the sorted set of positions that must stay though their watermark has passed them."""
        return f"{self.base}held:{partition}"

    def append_keys(self, partition: int) -> tuple[str, str, str, str]:
        """Return what an append to a partition touches."""
        ids = f"{self.base}ids:{partition}:"
        return self.log(partition), self.part(partition), ids + "recent", ids + "older"


class GroupKeys:
    """Name what belongs to one group."""

    def __init__(self, log: LogKeys, group: str) -> None:
        base = self.base = f"{log.base}group:{group}:"
        self.group = group
        self.members = base + "members"
        self.names = base + "names"
        self.controls = base + "controls"
        self.notes = base + "notes"
        self.letters = base + "letters"
        self.letter_rows = base + "letter-rows"
        self.letter_states = base + "letter-states"
        self.letter_index = base + "letter-index"
        self.letter_ids = base + "letter-ids"
        self.letter_counter = base + "letter-counter"
        self.actions = base + "actions"
        self.action_counter = base + "action-counter"

    def of(self, partition: int) -> PartitionKeys:
        """Return the names of what a group keeps for one partition."""
        return PartitionKeys(self.base, partition)


class PartitionKeys:
    """Name what a group keeps for one partition."""

    def __init__(self, base: str, partition: int) -> None:
        self._prefix = f"{base}{partition}:"
        self.lease = self._prefix + "lease"
        self.epochs = self._prefix + "epochs"
        self.cursors = self._prefix + "cursors"
        self.retries = self._prefix + "retries"

    @cached_property
    def queued(self) -> str:
        """Return the hash from positions in a queue to their keys."""
        return self._prefix + "queued"

    @cached_property
    def queue(self) -> str:
        """Return the sorted set of positions in queues, by key."""
        return self._prefix + "queue"

    @cached_property
    def blocking(self) -> str:
        """Return the hash of keys that dead letters block."""
        return self._prefix + "blocking"

    @cached_property
    def moves(self) -> str:
        """Return the hash of places where subscriptions are asked to stand."""
        return self._prefix + "moves"

    @cached_property
    def replays(self) -> str:
        """Return the hash of ranges that are to be delivered again."""
        return self._prefix + "replays"

    @cached_property
    def calls(self) -> str:
        """Return the set of dead letters about which others left word."""
        return self._prefix + "calls"
