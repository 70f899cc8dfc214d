"""Every error, reason and finding of the library has a Korean translation."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from string import Formatter
from typing import Any

import msgspec
import pytest

from pabal import upcaster
from pabal.brokers.redis.doctor import judge_server
from pabal.cli import language
from pabal.cli.korean.click_words import MISTAKES
from pabal.cli.korean.demo import DEMO_ERRORS
from pabal.cli.translation import translate, translate_error
from pabal.delivery.retry import GiveUp, RetryPolicy, decide_retry
from pabal.domain import registry
from pabal.domain.schema_check import check_schema
from pabal.domain.schema_export import export_schema
from pabal.errors import (
    CorruptLogError,
    DeadLetterNotFoundError,
    NotRetryableError,
    PabalError,
    StorageUnavailableError,
)
from pabal.korean import Sentences, in_korean
from pabal.korean.errors import ERRORS
from pabal.korean.findings import FINDINGS
from pabal.korean.reasons import REASONS
from pabal.operations.doctor import (
    check_durability,
    check_sqlite,
    check_subscriptions,
    report_damage,
)
from pabal.ports.inspection import LogFigures
from pabal.ports.storage import SubscriptionRecord
from tests.cli.english import HANGUL, english_in, sentences_of_errors
from tests.cqrs.test_schema import _define

ALL_ERRORS = {**ERRORS, **DEMO_ERRORS}


def _errors(cls: type[PabalError] = PabalError) -> Iterator[type[PabalError]]:
    for below in cls.__subclasses__():
        if below.__module__.startswith(("pabal.errors", "pabal.demo")):
            yield below
            yield from _errors(below)


# -- the catalogues ---------------------------------------------------------------------------------------


def test_every_error_class_with_a_template_has_a_korean_translation() -> None:
    """A Korean operator would read English where it matters most."""
    own = {cls for cls in _errors() if "template" in vars(cls)}
    assert own == set(ALL_ERRORS)


@pytest.mark.parametrize("cls", ALL_ERRORS, ids=lambda cls: cls.__name__)
def test_a_korean_error_template_has_the_fields_of_the_english_one(cls: type[PabalError]) -> None:
    """A path or a position would be missing, or the message end in a KeyError."""
    korean, english = (
        {n for _, n, _, _ in Formatter().parse(x) if n} for x in (ALL_ERRORS[cls], cls.template)
    )
    assert korean == english


@pytest.mark.parametrize("english", sorted({**MISTAKES, **REASONS, **FINDINGS}))
def test_a_korean_sentence_uses_only_fields_of_the_english_one(english: str) -> None:
    """It would end in a KeyError instead of the message."""
    translation = {**MISTAKES, **REASONS, **FINDINGS}[english]
    korean, known = ({n for _, n, _, _ in Formatter().parse(text) if n} for text in (translation, english))
    assert korean <= known


def test_every_reason_in_the_library_has_a_korean_translation(korean: None) -> None:
    """Half of the message would be English."""
    without = [(where, text) for where, text in sentences_of_errors() if not HANGUL.search(translate(text))]
    assert without == []


@pytest.mark.parametrize(
    ("error", "attempt"),
    [(NotRetryableError("closed"), 1), (KeyError("x"), 1), (ValueError("x"), 1), (TimeoutError(), 3)],
)
def test_the_reason_for_giving_up_a_delivery_has_a_korean_translation(
    korean: None, error: Exception, attempt: int
) -> None:
    """A dead letter would not say why it is one."""
    policy = RetryPolicy(max_attempts=3, never=(KeyError,), retry_on=(TimeoutError,))
    decision = decide_retry(policy, attempt, error, 0.5)
    assert isinstance(decision, GiveUp)
    assert HANGUL.search(translate(decision.reason))


def test_an_error_is_translated_by_its_fields_and_quoted_values_stay_unchanged(korean: None) -> None:
    """A value that looks like a sentence would be translated, or a sentence within another one not."""
    error = StorageUnavailableError(path="not registered", reason="the file is read-only")
    assert translate_error(error).startswith("not registered: 읽기 전용 파일입니다. ")
    assert translate_error(CorruptLogError(path="a.db", position=3, reason="checksum mismatch")).startswith(
        "a.db: 로그의 위치 3이 손상되었습니다(체크섬 불일치)."
    )
    assert translate_error(DeadLetterNotFoundError(dead_letter_id=9)).startswith("데드 레터 9번이 없습니다.")
    assert translate_error(NotRetryableError("the exchange is closed")) == "the exchange is closed"


def test_an_error_quoted_in_a_sentence_is_translated_by_its_pattern(korean: None) -> None:
    """Errors quoted by `pabal check` and imports would stay English."""
    error = str(CorruptLogError(path="a.db", position=3, reason="checksum mismatch"))
    assert translate(error) == translate_error(
        CorruptLogError(path="a.db", position=3, reason="checksum mismatch")
    )
    assert translate(f"line 3: {DeadLetterNotFoundError(dead_letter_id=9)}").startswith(
        "3행: 데드 레터 9번이"
    )


def test_english_output_is_not_translated() -> None:
    """English readers would find Korean in their logs."""
    language.choose("en")
    try:
        assert translate("the file is read-only") == "the file is read-only"
        error = DeadLetterNotFoundError(dead_letter_id=9)
        assert translate_error(error) == str(error)
    finally:
        language.choose(None)


def test_in_korean_translates_whatever_the_chosen_language_is() -> None:
    """The dashboard's pages choose the language themselves, whatever the server's language is."""
    language.choose("en")
    try:
        assert in_korean("the file is read-only") == "읽기 전용 파일입니다"
        assert in_korean("an unknown sentence") == "an unknown sentence"
        assert in_korean("1,204 done") == "1,204개 완료"
        assert in_korean("nothing was done") == "nothing was done"
    finally:
        language.choose(None)


# -- findings ---------------------------------------------------------------------------------------------


def _server_findings() -> Iterator[Any]:
    for aof, write, policy, limit, role, slaves, cluster, version in product(
        "01",
        ("ok", "err"),
        ("noeviction", "allkeys-lru"),
        ("0", "100"),
        ("master", "slave"),
        "012",
        "01",
        ("5.0", "7.2"),
    ):
        facts = {
            "redis_version": version,
            "aof_enabled": aof,
            "aof_last_write_status": write,
            "maxmemory_policy": policy,
            "maxmemory": limit,
            "used_memory": "90",
            "role": role,
            "connected_slaves": slaves,
            "cluster_enabled": cluster,
        }
        for how in ("always", "everysec", "no", None):
            yield from judge_server(facts, None if how is None else {"appendfsync": how})


def _record(**figures: Any) -> SubscriptionRecord:
    fields = {field.name: 0 for field in msgspec.structs.fields(SubscriptionRecord) if field.required}
    at = datetime(2026, 5, 1, tzinfo=UTC)
    return SubscriptionRecord(**{**fields, "name": "mail", "owner": None, "updated_at": at, **figures})


def _file_findings() -> Iterator[Any]:
    yield from check_sqlite((3, 40, 1))
    yield from check_durability("full")
    yield from check_durability("normal")
    yield from report_damage([])
    yield from report_damage([str(CorruptLogError(path="a.db", position=3, reason="checksum mismatch"))])
    yield from check_subscriptions([], LogFigures(0, 0, 0, None), datetime.now(UTC))
    for head, parked, queued, days in product((0, 1, 5), (0, 1, 2), (0, 1, 4), (0, 30)):
        record = _record(parked=parked, queued=queued, retries=parked)
        extent = LogFigures(min(1, head), head, 0, None)
        yield from check_subscriptions([record], extent, record.updated_at + timedelta(days=days))


def test_every_doctor_finding_has_a_korean_translation(korean: None) -> None:
    """A diagnosis would be half English."""
    texts = {
        text
        for finding in (*_server_findings(), *_file_findings())
        for text in (finding.text, finding.advice)
    }
    known = re.compile(r"(Redis|SQLite|Valkey) [\d.]+|")
    assert {
        text for text in texts if not HANGUL.search(translate(text)) and not known.fullmatch(text)
    } == set()
    assert [english for text in texts for english in english_in(translate(text))] == []


@pytest.mark.parametrize(
    ("before", "after", "version"),
    [
        ({"order": str, "note": str}, {"order": str}, 1),
        ({"amount": int}, {"amount": str}, 1),
        ({"order": str}, {"order": str, "note": str}, 1),
        ({"note": (str, "")}, {"note": str}, 1),
        ({"amount": int}, {"amount": str}, 2),
        ({"amount": int}, {"amount": int}, 3),
        ({"amount": int}, {"amount": int}, 0),
        ({"amount": int}, {}, 1),
    ],
)
def test_every_schema_check_finding_has_a_korean_translation(
    korean: None, before: dict[str, Any], after: dict[str, Any], version: int
) -> None:
    """A failed build would not say in Korean what to do."""
    with registry.isolated():
        _define("korean.order", version=max(1, 2 - version), **before)
        snapshot = export_schema()
    with registry.isolated():
        if after:
            _define("korean.order", version=version or 1, **after)
            if version == 2:
                upcaster("korean.order", from_version=1)(lambda payload: payload)
        _define("korean.fresh")
        findings = [each for each in check_schema(snapshot) if each.event_type.startswith("korean.")]
    assert len(findings) == 2
    for text in (text for finding in findings for text in (finding.problem, finding.advice)):
        assert HANGUL.search(translate(text)), text
        assert english_in(translate(text)) == []


def test_a_very_long_sentence_is_not_translated() -> None:
    """Showing a list of dead letters would take seconds, as each message is compared with all templates."""
    quoted = StorageUnavailableError(path="x" * 500, reason="the file is read-only")
    assert HANGUL.search(in_korean(str(StorageUnavailableError(path="x", reason="the file is read-only"))))
    assert in_korean(str(quoted)) == str(quoted)


def test_a_damaged_file_without_a_known_position_is_reported_without_one() -> None:
    """An operator would look for the event at position None."""
    error = CorruptLogError(path="a.db", position=None, reason="truncated: 5 of 9 bytes are left")
    assert (
        str(error)
        == "a.db: the file of the log is damaged (truncated: 5 of 9 bytes are left). Restore a backup"
    )
    korean = "a.db: 로그 파일이 손상되었습니다(잘림: 9바이트 중 5바이트만 남음). 백업을 복원하세요"
    assert in_korean(str(error)) == korean
    assert Sentences({}, {}).told(error) == korean
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
