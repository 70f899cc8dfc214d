"""``pabal dead-letters edit``: with and without an editor, and what is refused before anything changes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import warm
from tests.cli.conftest import Pabal, rewrite
from tests.cli.english import english_in
from tests.cli.test_processes import LIMIT, environment

Editor = Callable[[str], None]
KNOWN = ("--import", "tests.operations.conftest")


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Editor:
    """Choose what the editor leaves in the file that it is given."""
    script = tmp_path / "editor.py"
    script.write_text("import sys; open(sys.argv[-1], 'w').write(sys.argv[1])")

    def leave(text: str) -> None:
        monkeypatch.setenv("VISUAL", shlex.join([sys.executable, str(script), text]))

    return leave


def parked(pabal: Pabal, file: Path) -> tuple[str, object]:
    """Return state and payload of the first dead letter."""
    letter = json.loads(pabal("dead-letters", "show", file, 1, "--payloads", "full", "--json").stdout)
    return letter["state"], letter["event"]["payload"]


def test_an_edit_retries_with_the_payload_saved_in_the_editor(
    pabal: Pabal, file: Path, editor: Editor
) -> None:
    """The user would type a whole payload, and the old one be delivered again."""
    wanted = {"order_id": "o-1", "quantity": 4, "email": "lee@example.com"}
    editor(json.dumps(wanted))
    done = pabal("dead-letters", "edit", file, 1, *KNOWN)
    assert (done.exit_code, done.output) == (
        0,
        "1 done; takes effect when the subscription is handled next\n",
    )
    assert parked(pabal, file) == ("retrying", wanted)


@pytest.mark.parametrize(
    ("left", "code", "english", "korean"),
    [
        (
            "{",
            2,
            "this is not a JSON object: Input data was truncated",
            "JSON 객체가 아닙니다: 입력이 중간에",
        ),
        (
            "[1]",
            2,
            "this is not a JSON object: Expected `object`, got `array`",
            "JSON 객체가 아닙니다: `object`",
        ),
        ('[["a", 1]]', 2, "this is not a JSON object", "JSON 객체가 아닙니다"),
        ("{}", 1, "missing required field", "필수 필드"),
    ],
)
def test_an_edit_rejects_a_payload_that_does_not_fit_the_event_class(
    pabal: Pabal, file: Path, editor: Editor, left: str, code: int, english: str, korean: str
) -> None:
    """A slip in the editor would end in one of Python's messages, or in a payload of another shape."""
    before = parked(pabal, file)
    editor(left)
    refused = pabal("dead-letters", "edit", file, 1, *KNOWN)
    assert (refused.exit_code, english in refused.stderr) == (code, True)
    result = pabal("--lang", "ko", "dead-letters", "edit", file, 1, *KNOWN)
    assert (result.exit_code, korean in result.stderr, english_in(result.stderr)) == (code, True, [])
    assert parked(pabal, file) == before


def test_an_unchanged_payload_is_not_retried(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who changes their mind and closes the editor would still have it delivered."""
    before = parked(pabal, file)
    monkeypatch.setenv("VISUAL", "true")
    closed = pabal("dead-letters", "edit", file, 1, *KNOWN)
    assert (closed.exit_code, closed.stderr) == (1, "pabal: nothing was changed\n")
    same = pabal("--lang", "ko", "dead-letters", "edit", file, 1, *KNOWN, "--set", "quantity=-1")
    assert (same.exit_code, same.stderr) == (1, "pabal: 아무것도 바뀌지 않았습니다\n")
    monkeypatch.setenv("VISUAL", "false")
    broken = pabal("--lang", "ko", "dead-letters", "edit", file, 1, *KNOWN)
    assert (broken.exit_code, broken.stderr) == (1, "오류: false: 편집에 실패했습니다\n")
    assert parked(pabal, file) == before


def test_editing_a_dead_letter_that_is_being_retried_keeps_its_payload_and_fails(
    pabal: Pabal, file: Path
) -> None:
    """A script would take it for done, and the new payload be lost silently."""
    pabal("dead-letters", "retry", file, 1)
    before = parked(pabal, file)
    late = pabal("dead-letters", "edit", file, 1, *KNOWN, "--set", "quantity=4")
    assert (late.exit_code, late.stderr) == (
        1,
        "pabal: dead letter 1 is being retried already; nothing was changed\n",
    )
    assert parked(pabal, file) == before
    assert before[0] == "retrying"


@pytest.mark.parametrize(
    ("lang", "hint"),
    [
        ("en", "(name the module of the event class with --import)"),
        ("ko", "(--import로 이벤트 클래스의 모듈을 지정하세요)"),
    ],
)
def test_an_edit_without_the_event_class_asks_for_its_module(
    pabal: Pabal, file: Path, lang: str, hint: str
) -> None:
    """A user whose command does not know the event class would not learn how to import it."""
    command = ("--lang", lang, "dead-letters", "edit", str(file), "1", "--set", "quantity=4")
    ended = warm.run("pabal", *command, warm=warm.COMMANDS, cwd=file.parent, env=environment(), timeout=LIMIT)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.endswith(f"{hint}\n")
    assert "'shop.ordered'" in ended.stderr
    assert parked(pabal, file)[0] == "parked"


def test_an_event_of_pabal_itself_is_imported_without_its_module(tmp_path: Path) -> None:
    """A log with commands or processes could not be moved: the user knows no module of these events."""
    document = {
        "specversion": "1.0",
        "id": "0197a2f4-8c1e-7d3b-9a55-3f1c2b7e9d10",
        "source": "/shop",
        "type": "pabal.process.timed_out",
        "data": {"process": "sale", "key": "B2", "timeout": "unpaid"},
    }
    (tmp_path / "log.jsonl").write_text(json.dumps(document))
    # A new interpreter: one that is forked has imported the demo, which has process managers.
    ended = subprocess.run(
        [sys.executable, "-m", "pabal", "events", "import", "copy.db", "-i", "log.jsonl"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (ended.returncode, ended.stderr) == (0, "1 event stored\n")


def test_an_import_without_the_event_class_asks_for_its_module(tmp_path: Path) -> None:
    """A user whose command does not know the event class would not learn how to import it."""
    document = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "no.such", "data": {}}
    (tmp_path / "log.jsonl").write_text(json.dumps(document))
    command = ("events", "import", "copy.db", "-i", "log.jsonl")
    ended = warm.run("pabal", *command, warm=warm.COMMANDS, cwd=tmp_path, env=environment(), timeout=LIMIT)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("pabal: line 1: event type 'no.such' is not registered: import the module")
    assert ended.stderr.endswith(" (name the module of the event class with --import)\n")


def test_an_edit_can_replace_a_payload_that_is_not_json(pabal: Pabal, file: Path, editor: Editor) -> None:
    """A payload that another program wrote and nothing can read could never be fixed."""
    rewrite(file, "dead_letters", 1, payload=b"\xff\x00")
    piecemeal = pabal("dead-letters", "edit", file, 1, *KNOWN, "--set", "quantity=4")
    assert (piecemeal.exit_code, piecemeal.stderr) == (
        2,
        "pabal: 'quantity=4' is not FIELD=JSON; the fields are none\n",
    )
    wanted = {"order_id": "o-1", "quantity": 4, "email": "lee@example.com"}
    editor(json.dumps(wanted))
    assert pabal("dead-letters", "edit", file, 1, *KNOWN).exit_code == 0
    assert parked(pabal, file) == ("retrying", wanted)
