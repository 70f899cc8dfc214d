"""Whoever asks for Korean gets Korean: errors, Click's words, findings, and every typical mistake."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from string import Formatter
from typing import Any

import click
import msgspec
import pytest

from pabal import upcaster
from pabal.brokers.redis.doctor import judge_server
from pabal.cli import language
from pabal.cli.app import commands
from pabal.cli.korean.click_words import MISTAKES
from pabal.cli.korean.errors import ERRORS
from pabal.cli.korean.findings import FINDINGS
from pabal.cli.korean.reasons import REASONS
from pabal.cli.speaking import spoken, told
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
from pabal.operations.doctor import look_at_damage, look_at_sqlite, look_at_subscriptions
from pabal.ports.storage import SubscriptionRecord
from tests import warm
from tests.cli.conftest import Pabal
from tests.cli.english import HANGUL, english_in, sentences_of_errors
from tests.cli.test_processes import LIMIT, ROOT, environment
from tests.cqrs.test_schema import _define
from tests.docs.test_cli_page import leaves


@pytest.fixture
def korean() -> Iterator[None]:
    language.choose("ko")
    yield
    language.choose(None)


def _errors(cls: type[PabalError] = PabalError) -> Iterator[type[PabalError]]:
    for below in cls.__subclasses__():
        if below.__module__.startswith(("pabal.errors", "pabal.demo")):
            yield below
            yield from _errors(below)


# -- the catalogues ---------------------------------------------------------------------------------------


def test_every_error_with_a_sentence_of_its_own_has_one_in_korean() -> None:
    """A Korean operator would read English where it matters most."""
    own = {cls for cls in _errors() if "template" in vars(cls)}
    assert own == set(ERRORS)


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_the_korean_of_an_error_tells_the_same_fields(cls: type[PabalError]) -> None:
    """A path or a position would be missing, or the message end in a KeyError."""
    korean, english = ({n for _, n, _, _ in Formatter().parse(x) if n} for x in (ERRORS[cls], cls.template))
    assert korean == english


@pytest.mark.parametrize("english", sorted({**MISTAKES, **REASONS, **FINDINGS}))
def test_a_sentence_in_korean_invents_no_field(english: str) -> None:
    """It would end in a KeyError instead of the message."""
    said = {**MISTAKES, **REASONS, **FINDINGS}[english]
    korean, known = ({n for _, n, _, _ in Formatter().parse(text) if n} for text in (said, english))
    assert korean <= known


def test_every_reason_that_the_library_gives_has_korean(korean: None) -> None:
    """Half of the message would be English."""
    without = [(where, text) for where, text in sentences_of_errors() if not HANGUL.search(spoken(text))]
    assert without == []


@pytest.mark.parametrize(
    ("error", "attempt"),
    [(NotRetryableError("closed"), 1), (KeyError("x"), 1), (ValueError("x"), 1), (TimeoutError(), 3)],
)
def test_why_a_delivery_was_given_up_has_korean(korean: None, error: Exception, attempt: int) -> None:
    """A dead letter would not say why it is one."""
    policy = RetryPolicy(max_attempts=3, never=(KeyError,), retry_on=(TimeoutError,))
    decision = decide_retry(policy, attempt, error, 0.5)
    assert isinstance(decision, GiveUp)
    assert HANGUL.search(spoken(decision.reason))


def test_an_error_is_told_by_its_fields_and_what_it_quotes_stays(korean: None) -> None:
    """A value that looks like a sentence would be translated, or a sentence inside of one not."""
    error = StorageUnavailableError(path="not registered", reason="the file is read-only")
    assert told(error).startswith("not registered: 읽기 전용 파일입니다. ")
    assert told(CorruptLogError(path="a.db", position=3, reason="checksum mismatch")).startswith(
        "a.db: 로그의 위치 3이 손상되었습니다(체크섬 불일치)."
    )
    assert told(DeadLetterNotFoundError(dead_letter_id=9)).startswith("데드 레터 9번이 없습니다.")
    assert told(NotRetryableError("the exchange is closed")) == "the exchange is closed"


def test_an_error_inside_a_sentence_is_found_by_its_form(korean: None) -> None:
    """What `pabal check` and imports quote would stay English."""
    error = str(CorruptLogError(path="a.db", position=3, reason="checksum mismatch"))
    assert spoken(error) == told(CorruptLogError(path="a.db", position=3, reason="checksum mismatch"))
    assert spoken(f"line 3: {DeadLetterNotFoundError(dead_letter_id=9)}").startswith("3행: 데드 레터 9번이")


def test_nothing_is_translated_for_others() -> None:
    """English readers would find Korean in their logs."""
    language.choose("en")
    try:
        assert spoken("the file is read-only") == "the file is read-only"
        error = DeadLetterNotFoundError(dead_letter_id=9)
        assert told(error) == str(error)
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
        "02",
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
    yield from look_at_sqlite((3, 40, 1))
    yield from look_at_damage([])
    yield from look_at_damage([str(CorruptLogError(path="a.db", position=3, reason="checksum mismatch"))])
    yield from look_at_subscriptions([], 0, datetime.now(UTC))
    for head, parked, queued, days in product((0, 5), (0, 2), (0, 4), (0, 30)):
        record = _record(parked=parked, queued=queued)
        yield from look_at_subscriptions([record], head, record.updated_at + timedelta(days=days))


def test_everything_the_doctor_finds_has_korean(korean: None) -> None:
    """A diagnosis would be half English."""
    texts = {
        text
        for finding in (*_server_findings(), *_file_findings())
        for text in (finding.text, finding.advice)
    }
    known = re.compile(r"(Redis|SQLite|Valkey) [\d.]+|")
    assert {text for text in texts if not HANGUL.search(spoken(text)) and not known.fullmatch(text)} == set()
    assert [english for text in texts for english in english_in(spoken(text))] == []


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
def test_everything_the_schema_check_finds_has_korean(
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
        assert HANGUL.search(spoken(text)), text
        assert english_in(spoken(text)) == []


# -- mistakes ---------------------------------------------------------------------------------------------

MISTAKEN = [
    "",
    "status",
    "status nofile.db",
    "status broken.db",
    "status .",
    "status shop.db --jsn",
    "status shop.db extra",
    "status shop.db two more",
    "--bad",
    "sttus shop.db",
    "events lst shop.db",
    "events",
    "events list shop.db --since soon",
    "events list shop.db --until 2h --since 1h",
    "events list shop.db --type ord!",
    "events list shop.db --limit x",
    "events list shop.db --limit 0",
    "events list shop.db --limit",
    "events list shop.db --before x",
    "events list shop.db --payloads some",
    "events list shop.db --json=1",
    "events list postgres://x",
    "events list sqlite://",
    "status redis://localhost:x/0",
    "status redis://u:a/b@localhost/0",
    "doctor postgres://x",
    "doctor nofile.db",
    "doctor broken.db",
    "doctor shop.db",
    "events show shop.db",
    "events show shop.db nope",
    "events trace shop.db nope",
    "events export shop.db -o /no/such/x",
    "events import shop.db -i nofile",
    "events import shop.db -i bad.jsonl",
    "events import shop.db -i none.jsonl",
    "events import shop.db -i bad.jsonl --import nothere",
    "streams list shop.db --after x",
    "streams show shop.db x",
    "subscriptions pause shop.db nope",
    "subscriptions resume shop.db pack",
    "subscriptions reset shop.db pack",
    "subscriptions reset shop.db pack --to soon",
    "dead-letters show shop.db 99",
    "dead-letters show shop.db 1",
    "dead-letters retry shop.db",
    "dead-letters retry shop.db 99",
    "dead-letters retry shop.db --all",
    "dead-letters discard shop.db x",
    "dead-letters edit shop.db 1 --set quantity",
    "replay shop.db pack --from 0",
    "replay shop.db pack --from 100 --yes",
    "retention shop.db",
    "retention shop.db --max-age soon",
    "backup shop.db shop.db",
    "backup shop.db /no/such/x.db",
    "backup shop.db",
    "check broken.db",
    "audit shop.db",
    "dashboard nofile.db",
    "dashboard shop.db --port 99999",
    "dashboard shop.db --token short",
    "dashboard shop.db --import nothere",
    "asyncapi nothere",
    "asyncapi :bus",
    "asyncapi json:bus",
    "schema check nofile.json json",
    "schema check bad.jsonl json",
    "schema check none.jsonl json",
    "schema export nothere",
    "schema export",
    "bench --directory /no/such",
    "bench --directory shop.db",
    "bench --events 5",
    "completion tcsh",
    "completion",
    "demo --speed 0",
    "demo --resume --new",
    "demo --tape nofile.csv",
    "demo --tape tape.csv",
    "demo --resume --file nofile.db",
    "demo --file shop.db",
]


@pytest.fixture
def place(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a log, and with what is none."""
    folder = file.parent
    (folder / "broken.db").write_bytes(b"no log at all. " * 600)
    (folder / "bad.jsonl").write_text('{"id": 1}\n')
    (folder / "none.jsonl").write_text("{...\n")
    (folder / "tape.csv").write_text("timestamp,price,quantity\n2021-01-08T00:00:00Z,x,1\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


@pytest.mark.parametrize("line", MISTAKEN)
def test_a_mistake_is_told_in_korean_and_ends_as_in_english(line: str, place: Path, pabal: Pabal) -> None:
    """Somebody in a hurry would read a foreign language first, or a script break in another locale."""
    told_so = pabal("--lang", "ko", *line.split(), input="what\nn\n")
    assert HANGUL.search(told_so.output), told_so.output
    assert english_in(told_so.output) == []
    in_english = pabal("--lang", "en", *line.split(), input="what\nn\n")
    assert told_so.exit_code == in_english.exit_code
    assert not HANGUL.search(in_english.output)


@pytest.mark.parametrize("path", ["", *(path for path, _ in leaves(commands))])
def test_a_help_page_is_korean_and_fits(path: str, pabal: Pabal) -> None:
    """English would stand between the lines, or the lines be torn apart by the terminal."""
    page = pabal("--lang", "ko", *path.split(), "--help").output
    assert page.startswith(f"사용법: {' '.join(('pabal', path)).strip()} [옵션]")
    assert "이 도움말을 보여 주고 끝냅니다." in page
    assert english_in(page) == []
    assert max(click.style(line).count("") + len(HANGUL.findall(line)) for line in page.splitlines()) <= 100


def test_an_answer_that_is_neither_is_asked_again_and_no_answer_ends_it(place: Path, pabal: Pabal) -> None:
    """A slip of the finger would change things, or a script hang."""
    asked = pabal("--lang", "ko", "dead-letters", "retry", "shop.db", "--all", input="what\nn\n")
    assert asked.output.count("데드 레터 2개를 재시도할까요? [y/N]: ") == 2
    assert "y나 n으로 답하세요" in asked.output
    assert asked.exit_code == 1
    ended = pabal("--lang", "ko", "dead-letters", "retry", "shop.db", "--all", input="")
    assert ended.exit_code == 1
    assert "중단했습니다." in ended.output


# -- processes --------------------------------------------------------------------------------------------


def _process(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run("pabal", *arguments, warm=warm.COMMANDS, cwd=place, env=environment(), timeout=LIMIT)


def test_a_korean_locale_is_enough(place: Path) -> None:
    """Everyone would have to type --lang."""
    ended = subprocess.run(
        [sys.executable, "-m", "pabal", "status", "--bad"],
        cwd=place,
        env={**environment(), "PYTHONPATH": f"{ROOT / 'src'}", "LC_ALL": "", "LANG": "ko_KR.UTF-8"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "사용법: pabal status [옵션] FILE|URL\n도움말: pabal status --help\n\n"
        "오류: 그런 옵션이 없습니다: '--bad'\n"
    )


def test_without_the_extra_it_is_told_in_korean_too(place: Path) -> None:
    """The first line that a new user sees would be foreign."""
    script = "import sys; sys.modules['click'] = None; from pabal.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", script, "--lang", "ko", "status"],
        cwd=place,
        env={**environment(), "PYTHONPATH": f"{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == 'pabal 명령에는 선택 설치 항목이 필요합니다: pip install "pabal[cli]"\n'


@pytest.mark.parametrize("resumed", [False, True])
def test_a_whole_demo_is_korean(resumed: bool, place: Path) -> None:
    """The first thing that somebody tries would be half English."""
    arguments = ("--lang", "ko", "demo", "--file", "d.db", "--plain")
    played = _process(place, *arguments, "--events", "2500", "--speed", "max")
    if resumed:
        played = _process(place, *arguments, "--resume")
    assert played.returncode == 0, played.stderr
    assert "모의 테이프" in played.stdout
    assert english_in(played.stdout) == []


def test_what_programs_read_is_the_same_in_every_language(place: Path) -> None:
    """A pipeline would depend on who runs it."""
    for arguments in (("status", "shop.db", "--json"), ("doctor", "shop.db", "--json")):
        english, korean = (_process(place, "--lang", lang, *arguments).stdout for lang in ("en", "ko"))
        assert _without_rates(english) == _without_rates(korean)
        assert not HANGUL.search(korean)


def _without_rates(text: str) -> Any:
    report = msgspec.json.decode(text)
    return {name: value for name, value in report.items() if name not in ("as_of", "published_per_second")}
