"""A partition on the server conforms to the contract of storages, as far as it applies to a broker."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from pabal.brokers.redis.keys import GroupKeys
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.partition import PartitionStorage
from pabal.testing.conformance import Case, cases_for
from tests.brokers.server import Server

CASES = cases_for(PartitionStorage.capabilities)


class OnePartition(PartitionStorage):
    """A partition with its own log, for cases that open and close whole storages."""

    def __init__(self, url: str, namespace: str) -> None:
        log = RedisLog(url, namespace=namespace, partitions=1)
        super().__init__(log, GroupKeys(log.keys, "g"), 0, f"owner-{id(log)}", group="g", gives_up=True)
        log.on_appended = lambda partition, first, events: self.appended(first, events)
        log.begin()

    def open(self) -> None:
        super().open()
        self.log.begin()

    async def aclose(self) -> None:
        await super().aclose()
        if self.log.link.is_connected:
            await self.give_up()
        await self.log.close()


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_partition_storage_conforms(case: Case, shared_server: Server, namespace: str) -> None:
    """Otherwise an application that moves from a file to a server would meet different rules."""

    def opened() -> Any:
        return OnePartition(shared_server.url, namespace)

    await case(opened)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python has no eager tasks before 3.12")
@pytest.mark.parametrize("case", [case for case in CASES if str(case).startswith("bus: ")], ids=str)
async def test_a_partition_storage_conforms_on_a_loop_with_eager_tasks(
    case: Case, shared_server: Server, namespace: str
) -> None:
    """Eager tasks run as soon as they are created. The queue behind a parked key could be read before the
    worker has recorded its progress, so that its last event is handled twice.
    """

    def opened() -> Any:
        return OnePartition(shared_server.url, namespace)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - Python 3.11 has none
    try:
        await case(opened)
    finally:
        loop.set_task_factory(None)
