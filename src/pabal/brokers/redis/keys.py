"""The names of all keys on the server."""

from __future__ import annotations

from functools import cached_property

from pabal.delivery.tracebacks import storable
from pabal.errors import UsageError


def check_name(option: str, text: str) -> None:
    """Raise UsageError for a name that cannot be part of a key, or would end the key's hash tag."""
    if not isinstance(text, str) or not text.strip() or len(text) > 200 or set(text) & set("{}\0"):
        raise UsageError(f"{option} is {text!r}; it must be text of 1 to 200 characters without braces")
    if storable(text) != text:
        raise UsageError(f"{option} is {text!r}; it contains a lone surrogate, which cannot be stored")


class LogKeys:
    """The keys of one log. All share one hash tag, so a cluster keeps them on one node."""

    def __init__(self, namespace: str) -> None:
        self.base = f"{{{namespace}}}:"
        self.meta = self.base + "meta"
        self.groups = self.base + "groups"
        self.schedule = self.base + "schedule"
        self.scheduled = self.base + "scheduled"
        self.parts = self.base + "part:"

    def log(self, partition: int) -> str:
        """Return the key of the stream that holds a partition's events."""
        return f"{self.base}log:{partition}"

    def part(self, partition: int) -> str:
        """Return the key of the hash with a partition's head, floor (how far it is trimmed) and jumps."""
        return f"{self.parts}{partition}"

    def marks(self, partition: int) -> str:
        """Return the key of the sorted set of all subscriptions' watermarks in a partition."""
        return f"{self.base}marks:{partition}"

    def held(self, partition: int) -> str:
        """Return the key of the sorted set of positions to keep although watermarks have passed them."""
        return f"{self.base}held:{partition}"

    def append_keys(self, partition: int) -> tuple[str, str, str, str]:
        """Return the keys that an append to a partition uses: its stream, hash, recent and older ids."""
        ids = f"{self.base}ids:{partition}:"
        return self.log(partition), self.part(partition), ids + "recent", ids + "older"


class GroupKeys:
    """The keys of one group."""

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
        """Return the keys of this group for one partition."""
        return PartitionKeys(self.base, partition)


class PartitionKeys:
    """The keys of one group for one partition."""

    def __init__(self, base: str, partition: int) -> None:
        self._prefix = f"{base}{partition}:"
        self.lease = self._prefix + "lease"
        self.epochs = self._prefix + "epochs"
        self.cursors = self._prefix + "cursors"
        self.retries = self._prefix + "retries"

    @cached_property
    def queued(self) -> str:
        """Return the key of the hash that maps queued positions to their ordering keys."""
        return self._prefix + "queued"

    @cached_property
    def queue(self) -> str:
        """Return the key of the sorted set of queued positions, sorted by ordering key."""
        return self._prefix + "queue"

    @cached_property
    def blocking(self) -> str:
        """Return the key of the hash of ordering keys that dead letters block."""
        return self._prefix + "blocking"

    @cached_property
    def moves(self) -> str:
        """Return the key of the hash of requested resets: where each subscription is to be moved."""
        return self._prefix + "moves"

    @cached_property
    def replays(self) -> str:
        """Return the key of the hash of replays: the ranges to be delivered again."""
        return self._prefix + "replays"

    @cached_property
    def calls(self) -> str:
        """Return the key of the set of calls: dead letters that were retried or discarded, for the owner."""
        return self._prefix + "calls"
