"""With Korean chosen, everything is in Korean: every typical mistake, every help page, a whole demo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from pabal.cli.app import commands
from tests import warm
from tests.cli.conftest import Pabal
from tests.cli.english import HANGUL, english_in
from tests.cli.test_processes import LIMIT, ROOT, environment
from tests.docs.test_cli_page import leaves

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
    """A working directory with a log, and with files that are not logs."""
    folder = file.parent
    (folder / "broken.db").write_bytes(b"no log at all. " * 600)
    (folder / "bad.jsonl").write_text('{"id": 1}\n')
    (folder / "none.jsonl").write_text("{...\n")
    (folder / "tape.csv").write_text("timestamp,price,quantity\n2021-01-08T00:00:00Z,x,1\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


@pytest.mark.parametrize("line", MISTAKEN)
def test_a_usage_error_is_korean_and_has_the_same_exit_code_as_in_english(
    line: str, place: Path, pabal: Pabal
) -> None:
    """Users in a hurry would have to read a foreign language, or a script break in another locale."""
    told_so = pabal("--lang", "ko", *line.split(), input="what\nn\n")
    assert HANGUL.search(told_so.output), told_so.output
    assert english_in(told_so.output) == []
    in_english = pabal("--lang", "en", *line.split(), input="what\nn\n")
    assert told_so.exit_code == in_english.exit_code
    assert not HANGUL.search(in_english.output)


@pytest.mark.parametrize("path", ["", *(path for path, _ in leaves(commands))])
def test_korean_help_pages_contain_no_english_and_fit_the_terminal(path: str, pabal: Pabal) -> None:
    """There would be English between the lines, or the terminal would break the lines."""
    page = pabal("--lang", "ko", *path.split(), "--help").output
    assert page.startswith(f"사용법: {' '.join(('pabal', path)).strip()} [옵션]")
    assert "이 도움말을 보여 주고 끝냅니다." in page
    assert english_in(page) == []
    assert max(click.style(line).count("") + len(HANGUL.findall(line)) for line in page.splitlines()) <= 100


def test_a_korean_prompt_repeats_after_an_invalid_answer_and_aborts_without_one(
    place: Path, pabal: Pabal
) -> None:
    """A slip would change something, or a script hang."""
    result = pabal("--lang", "ko", "dead-letters", "retry", "shop.db", "--all", input="what\nn\n")
    assert result.output.count("데드 레터 2개를 재시도할까요? [y/N]: ") == 2
    assert "y나 n으로 답하세요" in result.output
    assert result.exit_code == 1
    ended = pabal("--lang", "ko", "dead-letters", "retry", "shop.db", "--all", input="")
    assert ended.exit_code == 1
    assert "중단했습니다." in ended.output


# -- processes --------------------------------------------------------------------------------------------


def _process(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run("pabal", *arguments, warm=warm.COMMANDS, cwd=place, env=environment(), timeout=LIMIT)


def test_a_korean_locale_selects_korean(place: Path) -> None:
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


@pytest.mark.parametrize(
    "arguments", [("--lang", "ko", "status"), ("--lang=ko", "status"), ("--version", "--lang", "ko")]
)
def test_a_missing_cli_extra_is_reported_in_korean(place: Path, arguments: tuple[str, ...]) -> None:
    """The first line that a new user sees would be in a foreign language."""
    script = "import sys; sys.modules['click'] = None; from pabal.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", script, *arguments],
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
def test_the_demo_prints_no_english_sentences_in_korean(resumed: bool, place: Path) -> None:
    """The first thing that users try would be half English."""
    arguments = ("--lang", "ko", "demo", "--file", "d.db", "--plain")
    played = _process(place, *arguments, "--events", "2500", "--speed", "max")
    if resumed:
        played = _process(place, *arguments, "--resume")
    assert played.returncode == 0, played.stderr
    assert "모의 테이프" in played.stdout
    assert english_in(played.stdout) == []


def test_json_output_is_the_same_in_every_language(place: Path) -> None:
    """A pipeline would depend on who runs it."""
    for arguments in (("status", "shop.db", "--json"), ("doctor", "shop.db", "--json")):
        english, korean = (_process(place, "--lang", lang, *arguments).stdout for lang in ("en", "ko"))
        assert _without_rates(english) == _without_rates(korean)
        assert not HANGUL.search(korean)


def _without_rates(text: str) -> Any:
    report = msgspec.json.decode(text)
    return {name: value for name, value in report.items() if name not in ("as_of", "published_per_second")}
