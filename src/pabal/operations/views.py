"""Convert what storages and buses hold into the views that operators see."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from pabal.bus.base import BaseEventBus
from pabal.domain.envelope import StoredRecord, from_microseconds
from pabal.domain.event import kind_of
from pabal.domain.registry import registry
from pabal.ports.inspection import ActionRecord, DeliveryRecord, LogFigures
from pabal.ports.operations import (
    AuditEntry,
    DeadLetterView,
    DeliveryView,
    EventView,
    Reason,
    SubscriptionView,
    Totals,
)
from pabal.ports.storage import DeadLetterRecord, SubscriptionRecord
from pabal.ports.views import stored_view


def event_view(row: StoredRecord, *, payload: bool) -> EventView:
    """Convert a row; a payload that is not JSON stays bytes."""
    return EventView(
        position=row.position,
        cursor=str(row.position),
        event_id=row.id_text,
        event_type=row.event_type,
        schema_version=row.schema_version,
        aggregate_type=row.aggregate_type,
        aggregate_id=row.aggregate_id,
        stream_version=row.stream_version,
        occurred_at=from_microseconds(row.occurred_at),
        recorded_at=from_microseconds(row.recorded_at),
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        size=len(row.payload),
        payload=_plain(row.payload) if payload else msgspec.UNSET,
        metadata=_plain(row.metadata) if payload and row.metadata is not None else msgspec.UNSET,
    )


def _plain(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return data


def letter_view(letter: DeadLetterRecord) -> DeadLetterView:
    """Convert a stored dead letter."""
    return DeadLetterView(
        id=letter.id,
        subscription=letter.subscription,
        event=_event_of(letter),
        error_type=letter.error_type,
        reason=letter.reason,
        attempts=letter.failures,
        parked_at=letter.parked_at,
        state=letter.state,
        key=letter.key,
        queued=letter.queued,
    )


def _event_of(letter: DeadLetterRecord) -> EventView:
    if letter.record is not None:
        return event_view(letter.record, payload=True)
    event = letter.event
    assert event is not None
    schema = registry.schema_of(kind_of(event))
    described = event.to_dict()
    return EventView(
        position=None,
        cursor="",
        event_id=event.event_id,
        event_type=schema.event_type,
        schema_version=schema.version,
        aggregate_type=event.aggregate_type,
        aggregate_id=event.aggregate_id,
        stream_version=None,
        occurred_at=event.occurred_at,
        recorded_at=event.occurred_at,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        size=len(msgspec.json.encode(described["payload"])),
        payload=described["payload"],
        metadata=dict(event.metadata) or msgspec.UNSET,
    )


def delivery_view(record: DeliveryRecord) -> DeliveryView:
    """Convert a delivery."""
    return DeliveryView(
        record.subscription,
        record.state,
        record.attempts,
        None if record.due_at is None else datetime.fromtimestamp(record.due_at, UTC),
        record.failures,
        record.dead_letter_id,
        None if record.finished_at is None else datetime.fromtimestamp(record.finished_at, UTC),
    )


def subscription_view(
    record: SubscriptionRecord, extent: LogFigures, figures: Mapping[str, Any] | None
) -> SubscriptionView:
    """Convert a stored subscription, adding the figures of the bus that handles it here, if there is one."""
    view = stored_view(record, extent.first, extent.head)
    return view if figures is None else with_figures(view, figures)


def with_figures(view: SubscriptionView, figures: Mapping[str, Any]) -> SubscriptionView:
    """Add the figures that only the handling process knows."""
    elsewhere = figures["state"] == "standby" and view.state == "halted"
    # A bus without a place in the log, for example because another process handles the subscription,
    # counts no lag; one that has a place counts trimmed events ahead of it until they are read past.
    lag = view.lag if figures["watermark"] is None else min(view.lag, figures["lag"])
    return msgspec.structs.replace(
        view,
        state=view.state if elsewhere else figures["state"],
        lag=lag,
        reason=view.reason if elsewhere else figures["reason"],
        in_flight=figures["in_flight"],
        handled=figures["handled"],
        failed_attempts=figures["failed_attempts"],
        skipped=figures["skipped"],
        average_ms=figures["avg_processing_time_ms"],
        p50_ms=figures.get("p50_ms"),
        p99_ms=figures.get("p99_ms"),
    )


def with_bus_counters(totals: Totals, bus: BaseEventBus) -> Totals:
    """Add the counters of a live bus."""
    figures = bus.get_statistics()
    return msgspec.structs.replace(
        totals,
        published=figures["events_published"],
        handled=figures["events_processed"],
        failed_attempts=figures["events_failed"],
        uptime_seconds=figures["uptime_seconds"],
        workers=figures["worker_count"],
        is_running=figures["is_running"],
    )


def reasons_of(bus: BaseEventBus) -> list[Reason]:
    """Return the first reason of a live bus whose health is failing."""
    health = bus.health()
    if health.status != "failing":
        return []
    return [Reason("bus", "failing", text) for text in health.reasons[:1]]


def audit_entry(record: ActionRecord) -> AuditEntry:
    """Convert a stored action to a view."""
    return AuditEntry(
        record.id,
        record.at,
        record.actor,
        record.action,
        record.subject,
        record.details,
        record.result,
        record.succeeded,
    )
