"""Which partition an event belongs to: part of the format, so all processes have to compute the same."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pabal import DomainEvent
from pabal.brokers.redis.log import RedisLog
from pabal.brokers.redis.wire import PartitionKey, aggregate_key, partition_of
from pabal.errors import UsageError

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]))


class Market(str, Enum):  # noqa: UP042
    """A text enum of the older kind: formatted, its members are ``Market.BTC`` on Python 3.12 and later."""

    BTC = "KRW-BTC"


class Quoted(DomainEvent):
    event_type: ClassVar[str] = "partitions.quoted"
    aggregate_type: ClassVar[str] = "market"
    market: str | None

    @property
    def aggregate_id(self) -> str | None:
        return self.market


class Noticed(DomainEvent):
    event_type: ClassVar[str] = "partitions.noticed"
    text: str


def partition(event: DomainEvent, key: PartitionKey = aggregate_key, partitions: int = 16) -> int:
    log = RedisLog("redis://127.0.0.1:1/0", partition_key=key)
    log.partitions = partitions
    return log.partitions_of([event], [log.encoded(event)])[0]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Quoted("KRW-BTC", event_id=ID), 13),
        (Quoted("원화-비트코인", event_id=ID), 6),
        (Quoted("", event_id=ID), 9),
        (Quoted(None, event_id=ID), 4),
        (Noticed("KRW-BTC", event_id=ID), 4),
    ],
)
def test_an_event_belongs_to_the_partition_that_other_releases_compute(
    event: DomainEvent, expected: int
) -> None:
    """Processes of two releases would put events of one key into two partitions, and lose their order."""
    assert partition(event) == expected


@given(aggregate_id=TEXTS, partitions=st.integers(1, 1024))
def test_the_quick_way_for_the_default_key_agrees_with_the_general_one(
    aggregate_id: str | None, partitions: int
) -> None:
    """A bus whose ``partition_key`` calls the default one would spread events in another way."""
    event = Quoted(aggregate_id)
    quick = partition(event, partitions=partitions)
    assert quick == partition(event, lambda one: aggregate_key(one), partitions)
    assert quick == partition_of(
        aggregate_key(event), bytes.fromhex(event.event_id.replace("-", "")), partitions
    )


def test_an_id_that_is_a_member_of_a_text_enum_counts_as_its_text() -> None:
    """Python 3.12 formats such a member in another way: two processes would disagree about its partition."""
    assert partition(Quoted(Market.BTC)) == partition(Quoted("KRW-BTC"))


def test_an_id_that_has_no_encoding_is_named_in_the_error() -> None:
    """The publisher would get a UnicodeEncodeError that does not say which key is meant."""
    log = RedisLog("redis://127.0.0.1:1/0")
    log.partitions = 16
    record = log.encoded(Quoted("KRW-BTC"))._replace(aggregate_id="\ud800")
    with pytest.raises(UsageError, match=r"partition_key returned 'market/\\ud800'"):
        log.partitions_of([Quoted("\ud800")], [record])
