"""``EventBusFactory`` and ``open_operations``: the one place that names concrete backends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from pabal.bus.base import BaseEventBus
from pabal.bus.in_memory import InMemoryEventBus
from pabal.errors import MissingExtraError, NotAPabalDatabaseError, StorageUnavailableError, UsageError
from pabal.operations import GroupSource, Masking, Operations, StorageSource
from pabal.operations.doctor import Diagnosis, Finding
from pabal.ports.operations import OperationsSource
from pabal.storage.sqlite import SqliteEventStorage

if TYPE_CHECKING:
    from pabal.brokers.redis import RedisEventBus

__all__ = ["EventBusFactory", "examine_redis", "open_log", "open_operations"]

_STORAGE_OPTIONS = ("durability", "max_payload_bytes")
_BUS_SETTINGS = ("worker_count", "max_queue_size", "backpressure")
_INTEGERS = ("worker_count", "max_queue_size", "max_payload_bytes", "partitions", "keep")
_SECONDS = ("lease", "patience")
_REDIS = ("redis", "rediss", "valkey", "valkeys", "unix")
_REDIS_SETTINGS = ("group", "namespace", "when_disconnected", "partitions", "keep", *_SECONDS)


class EventBusFactory:
    """Create buses for the usual cases.

    >>> import asyncio
    >>> from pabal import DomainEvent
    >>> class LampLit(DomainEvent):
    ...     room: str
    >>> async def main(url: str) -> None:
    ...     async with EventBusFactory.from_url(url) as bus:
    ...         print(await bus.publish(LampLit("hall")))
    >>> asyncio.run(main("sqlite:///lamps.db?durability=normal"))
    Receipt(event_id='...', position=1, ...
    """

    @staticmethod
    def create_in_memory_event_bus(
        worker_count: int = 4, max_queue_size: int = 10_000, **options: Any
    ) -> InMemoryEventBus:
        """Return a bus with nothing on disk. ``options`` are those of InMemoryEventBus."""
        return InMemoryEventBus(worker_count=worker_count, max_queue_size=max_queue_size, **options)

    @staticmethod
    def create_default_event_bus(path: str | Path = "pabal.db", **options: Any) -> InMemoryEventBus:
        """Return a durable bus on a SQLite file, which is opened now and closed when the bus stops.

        ``options`` are those of InMemoryEventBus and SqliteEventStorage. Raises StorageError.
        """
        return _durable_bus(path, options, owns_storage=True)[0]

    @staticmethod
    def create_complete_event_system(
        path: str | Path = "pabal.db", **options: Any
    ) -> tuple[InMemoryEventBus, SqliteEventStorage]:
        """Return a durable bus and its storage; the caller closes the storage after the bus has stopped."""
        return _durable_bus(path, options)

    @staticmethod
    def create_redis_event_bus(url: str, group: str, **options: Any) -> RedisEventBus:
        """Return a bus on a Redis or Valkey server, shared with every process of the same ``group``.

        ``options`` are those of RedisEventBus. Raises MissingExtraError without ``pabal[redis]``.
        """
        try:
            from pabal.brokers.redis import RedisEventBus
        except ImportError as error:
            raise _missing(error) from error
        return RedisEventBus(url, group=group, **options)

    @staticmethod
    def from_url(url: str, **options: Any) -> BaseEventBus:
        """Return the bus that a URL describes.

        ``memory://`` or ``sqlite:///relative.db`` (four slashes for an absolute path); a query sets
        options, for example ``sqlite:///trading.db?worker_count=8&durability=normal``. A server is named by
        ``redis://host:6379/0?group=risk`` (``rediss://`` for TLS, ``valkey://``, ``unix://``); settings that
        are not pabal's go to the client. Raises UsageError for a URL that is not understood, and
        MissingExtraError if an extra is not installed.
        """
        if not isinstance(url, str):
            raise UsageError(f"the URL of a bus is text, not {url!r}; is the setting it comes from missing?")
        parts = _parts_of(url)
        if parts.scheme in _REDIS:
            return _redis_bus(url, options)
        if parts.scheme == "memory":
            _check_memory(url, parts)
            settings = _settings(_shown(url), parts.query, _BUS_SETTINGS) | options
            return EventBusFactory.create_in_memory_event_bus(**settings)
        if parts.scheme == "sqlite":
            known = (*_BUS_SETTINGS, *_STORAGE_OPTIONS)
            settings = _settings(_shown(url), parts.query, known) | options
            return EventBusFactory.create_default_event_bus(_file_of(url, parts), **settings)
        raise UsageError(f"{_shown(url)!r} is not the URL of a bus; use memory://, sqlite:/// or redis://")


async def examine_redis(url: str, namespace: str = "pabal") -> Diagnosis:
    """Return findings about a server and the log on it; nothing is written.

    Raises BrokerUnavailableError if the server does not answer, MissingExtraError without the extra, and
    UsageError for a URL of something else.
    """
    parts = _parts_of(url)
    if parts.scheme not in _REDIS:
        raise UsageError(
            f"a {parts.scheme}:// URL names no server; write redis://host:6379/0, or a file's path"
        )
    try:
        from pabal.brokers.redis.address import masked
        from pabal.brokers.redis.doctor import examine_server
    except ImportError as error:
        raise _missing(error) from error
    server, _ = _server_of(parts)
    found = await examine_server(server, namespace)
    findings = tuple(Finding(one.level, one.text, one.advice) for one in found)
    return Diagnosis(masked(server), findings)


def _server_of(parts: SplitResult) -> tuple[str, dict[str, str]]:
    """Split a server's URL into the URL for the client and the settings of the bus."""
    _check_password(parts)
    mine = (*_REDIS_SETTINGS, *_INTEGERS, "backpressure")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    rest = [pair for pair in pairs if pair[0] not in mine]
    server = urlunsplit(parts._replace(query=urlencode(rest)))
    return server, {name: text for name, text in pairs if name in mine}


def _parts_of(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        # The part that cannot be parsed may belong to a password that was not escaped.
        raise UsageError(
            "this URL cannot be read: only an IPv6 address may stand in square brackets; "
            "in a password, write %5B for [ and %5D for ]"
        ) from None


def _shown(url: str) -> str:
    """Return a URL for a message: without its query, and without anything that may be user and password."""
    scheme, mark, _ = url.partition("://")
    return f"{scheme}{mark}…" if mark and "@" in url else url.partition("?")[0]


def _check_password(parts: SplitResult) -> None:
    """Refuse a URL split in two by its password, whose second half would appear as a path or setting."""
    if "@" in f"{parts.path}{parts.query}{parts.fragment}" and "@" not in parts.netloc:
        raise UsageError(
            f"a {parts.scheme}:// URL whose password holds / ? or # has to write them as %2F, %3F and %23"
        )


def _check_memory(url: str, parts: SplitResult) -> None:
    """Refuse a ``memory://`` URL that names something to keep: it would be lost with the process."""
    if parts.netloc or parts.path not in ("", "/") or parts.fragment:
        raise UsageError(
            f"{_shown(url)!r} is not valid: nothing may follow memory://; write sqlite:///trading.db for a "
            "file, or memory:// for a bus with nothing on disk"
        )


def _missing(error: ImportError) -> ImportError:
    """Return the error to raise for a failed import: MissingExtraError if the client is not installed."""
    if (error.name or "").partition(".")[0] != "redis":
        return error
    return MissingExtraError(feature="a bus on Redis", extra="redis")


def open_operations(
    target: str | Path, *, masking: Masking | None = None, actor: str = "operator"
) -> Operations:
    """Open the log of a bus that runs elsewhere, or not at all, to inspect and control it.

    ``target`` is the path of an existing file, a URL such as ``sqlite:///trading.db``, or the URL of a bus on
    a server: ``redis://host:6379/0?group=risk``. If the log has only one group, it need not be named. A
    server is connected to on the first call, and the group is not joined. Closing the operations closes the
    file or the connection. Raises UsageError for a URL that is not understood, StorageUnavailableError for a
    file that does not exist, NotAPabalDatabaseError for one that is not a log, and MissingExtraError without
    ``pabal[redis]``.

    >>> import asyncio
    >>> SqliteEventStorage("stock.db").close()  # an application has been here
    >>> async def main() -> None:
    ...     async with open_operations("stock.db", actor="kim") as operations:
    ...         overview = await operations.overview()
    ...         print(overview.health, overview.totals.events)
    >>> asyncio.run(main())
    ok 0
    """
    source: OperationsSource
    if isinstance(target, str) and "://" in target and _parts_of(target).scheme in _REDIS:
        source = _group_of(target)
    else:
        source = StorageSource(open_log(target), owns_storage=True)
    return Operations(source, masking=masking, actor=actor)


def _group_of(url: str) -> GroupSource:
    try:
        from pabal.brokers.redis.inspector import GroupInspector
    except ImportError as error:
        raise _missing(error) from error
    server, mine = _server_of(_parts_of(url))
    return GroupSource(
        GroupInspector(server, group=mine.get("group") or None, namespace=mine.get("namespace") or "pabal")
    )


def open_log(target: str | Path) -> SqliteEventStorage:
    """Open an existing file, given its path or a ``sqlite:///`` URL; the caller closes it.

    An empty file is refused: opening it would make it a log, and it would seem healthy. Raises what
    ``open_operations`` raises.

    >>> open_log("missing.db")
    Traceback (most recent call last):
        ...
    pabal.errors.storage.StorageUnavailableError: missing.db: there is no such file...
    """
    path = Path(_path_of(target))
    if not os.path.exists(path):
        raise StorageUnavailableError(path=str(path), reason="there is no such file")
    if path.is_file() and not path.stat().st_size:
        raise NotAPabalDatabaseError(path=str(path), reason="an empty file")
    return SqliteEventStorage(path)


def _path_of(target: str | Path) -> str | Path:
    if isinstance(target, Path) or not ("://" in target or target.startswith("sqlite:/")):
        return target
    parts = _parts_of(target)
    if parts.scheme == "sqlite":
        return _file_of(target, parts)
    if parts.scheme in _REDIS:
        raise UsageError(
            f"a {parts.scheme}:// URL names a server, but this command needs "
            "a log file; to check a server, use pabal doctor"
        )
    # The URL itself may contain a password.
    raise UsageError(
        f"a {parts.scheme}:// URL has no log; name a file, sqlite:///trading.db, or redis://host:6379/0"
    )


def _file_of(url: str, parts: SplitResult) -> str:
    path = unquote(parts.path.removeprefix("/"))
    # With fewer slashes it would be unclear where the path begins.
    if parts.netloc or not path or not url.partition(":")[2].startswith("///"):
        raise UsageError(
            f"{_shown(url)!r} names no file; write sqlite:///trading.db, or sqlite:////var/lib/trading.db"
        )
    if parts.fragment or "\0" in path:
        raise UsageError(f"{_shown(url)!r} holds a # or NUL, which ends the file's name; write %23 for #")
    return path


def _redis_bus(url: str, options: dict[str, Any]) -> RedisEventBus:
    parts = _parts_of(url)
    name = f"{parts.scheme}://…"  # the URL itself may contain a password
    server, texts = _server_of(parts)
    settings = {key: _parse_setting(name, key, text) for key, text in texts.items()} | options
    if not settings.get("group"):
        raise UsageError(f"{name!r} names no group; add ?group=… (one for each application)")
    return EventBusFactory.create_redis_event_bus(server, **settings)


def _durable_bus(
    path: str | Path, options: dict[str, Any], **more: Any
) -> tuple[InMemoryEventBus, SqliteEventStorage]:
    mine = {name: value for name, value in options.items() if name in _STORAGE_OPTIONS}
    rest = {name: value for name, value in options.items() if name not in _STORAGE_OPTIONS}
    storage = SqliteEventStorage(path, **mine)
    try:
        return InMemoryEventBus(event_storage=storage, **more, **rest), storage
    except BaseException:
        storage.close()  # no caller has it to close
        raise


def _settings(url: str, query: str, known: tuple[str, ...]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise UsageError(f"{url!r}: unknown setting {name!r}; known settings: {', '.join(known)}")
        settings[name] = _parse_setting(url, name, text)
    return settings


def _parse_setting(url: str, name: str, text: str) -> Any:
    if name in _SECONDS:
        try:
            return float(text)
        except ValueError:
            raise UsageError(f"{url!r}: {name} must be a number of seconds, not {text!r}") from None
    if name in _INTEGERS:
        if not text.isdecimal():
            raise UsageError(f"{url!r}: {name} must be a whole number, not {text!r}")
        return int(text)
    return text
