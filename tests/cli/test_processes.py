"""The command line in real use: its own processes, a pipe, a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests import warm

ROOT = Path(__file__).parents[2]
LIMIT = 60.0
"""Seconds after which a command counts as hung, even on a busy machine."""
_PABAL = (sys.executable, "-m", "pabal")


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**kept, "LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "COLUMNS": "120", **more}


def application(file: Path, first: int, last: int) -> None:
    command = [sys.executable, "-m", "tests.cli.shop_process", str(file), str(first), str(last)]
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, timeout=LIMIT)


class Terminal:
    """Run a command on a pseudo-terminal, and type."""

    def __init__(self, *command: str, **more: str) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(**more),
            cwd=ROOT,
            close_fds=True,
            # A shell that starts the tests in the background makes them and their children ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(slave)
        self.screen = ""

    def wait_for(self, shown: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + LIMIT
        while not shown(self.screen):
            assert time.monotonic() < deadline, self.screen
            if not self._read(1.0) and self.process.poll() is not None:
                break
        assert shown(self.screen), self.screen
        return self.screen

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other side is closed
            return False
        self.screen += data.decode()
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        deadline = time.monotonic() + LIMIT
        while self._read(0.5) or self.process.poll() is None:
            assert time.monotonic() < deadline, self.screen
        os.close(self._master)
        return self.process.wait(LIMIT)


def lines(count: int) -> Callable[[str], bool]:
    return lambda screen: screen.count("shop.ordered") >= count


def test_tail_continues_when_the_application_restarts(file: Path) -> None:
    """An operator who watches a deployment would see nothing of the new version."""
    terminal = Terminal(*_PABAL, "tail", str(file), "--type", "shop.ordered", "--after", "7")
    try:
        application(file, 10, 11)
        terminal.wait_for(lines(2))
        application(file, 12, 12)
        terminal.wait_for(lines(3))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
    finally:
        terminal.process.kill()
    shown = re.findall(r'"order_id":"(o-\d+)"', terminal.screen)
    assert shown[-3:] == ["o-10", "o-11", "o-12"]


def test_a_terminal_prompt_is_answered_before_anything_changes(file: Path) -> None:
    """The dead letters would be gone before the answer."""
    command = (*_PABAL, "dead-letters", "discard", str(file), "--all")
    for answer, code, result in (("n", 1, "nothing was changed"), ("y", 0, "2 done")):
        terminal = Terminal(*command)
        terminal.wait_for(lambda screen: "Discard 2 dead letters for good? [y/N]" in screen)
        terminal.type(f"{answer}\n")
        assert terminal.end() == code, terminal.screen
        assert result in terminal.screen


def test_colours_are_used_only_on_terminals_that_allow_them(file: Path) -> None:
    """Escape codes would end up in files, or on the screen of a user who disabled them."""
    doctor, colour = (*_PABAL, "doctor", str(file)), re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    coloured = Terminal(*doctor)
    coloured.end()
    assert colour.search(coloured.screen)
    plain = Terminal(*doctor, NO_COLOR="1")
    plain.end()
    assert "all checksums" in plain.screen
    assert not colour.search(plain.screen)
    piped = pabal("doctor", str(file))
    assert ("all checksums" in piped.stdout, "\x1b" in piped.stdout) == (True, False)


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_output_on_a_terminal_with_a_limited_encoding_escapes_missing_characters(
    file: Path, lang: str
) -> None:
    """Korean output or a Korean event on such a terminal would end in a traceback."""
    command = (*_PABAL, "--lang", lang, "status", str(file))
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(PYTHONIOENCODING="latin-1", PYTHONPATH="src"),
        capture_output=True,
        timeout=LIMIT,
        check=True,
    )
    assert b"pack" in ended.stdout
    assert (rb"\uad6c\ub3c5 'pack'" in ended.stdout) == (lang == "ko")
    assert ended.stderr == b""


HEADINGS = {
    "en": ("subscription", "state", "position", "lag", "retries", "dead letters", "queued", "updated"),
    "ko": ("구독", "상태", "위치", "지연", "재시도", "데드 레터", "대기열", "갱신 시각"),
}


@pytest.mark.parametrize("width", [20, 26, 34, 48, 79, 80])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_table_loses_no_cells_on_a_narrow_terminal(file: Path, width: int, language: str) -> None:
    """On a phone, columns would be too narrow for a Korean letter, and cells empty."""
    command = (*_PABAL, "--lang", language, "subscriptions", "list", str(file))
    terminal = Terminal(*command, COLUMNS=str(width), NO_COLOR="1")
    assert terminal.end() == 0
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in terminal.screen.splitlines()]
    assert max(map(cell_len, lines)) <= width
    letters = Counter("".join(lines))
    assert Counter("".join((*HEADINGS[language], "pack", "82")).replace(" ", "")) - letters == Counter()
    if width < 80:
        assert [heading for heading in HEADINGS[language] if heading not in terminal.screen] == []


def test_table_rows_are_separated_when_each_cell_has_its_own_line(file: Path) -> None:
    """Two dead letters would look like one with twice as many lines."""
    terminal = Terminal(*_PABAL, "dead-letters", "list", str(file), COLUMNS="30", NO_COLOR="1")
    assert terminal.end() == 0
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).split() for line in terminal.screen.splitlines()]
    gap = lines.index([])
    assert (lines[0], lines[gap + 1]) == (["number", "1"], ["number", "2"])
    assert [cells[0] for cells in lines[:gap]] == [cells[0] for cells in lines[gap + 1 :]]


def pabal(*arguments: str) -> subprocess.CompletedProcess[str]:
    return warm.run("pabal", *arguments, warm=warm.COMMANDS, timeout=LIMIT, env=environment(), cwd=ROOT)


def test_the_application_delivers_a_dead_letter_edited_in_the_editor(file: Path, tmp_path: Path) -> None:
    """The fix would be made but never arrive."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i "s/-1/41/" "$1"\n')
    editor.chmod(0o755)
    command = ("dead-letters", "edit", str(file), "1", "--import", "tests.operations.conftest", "--json")
    terminal = Terminal(*_PABAL, *command, EDITOR=str(editor))
    assert terminal.end() == 0, terminal.screen
    assert json.loads(terminal.screen)["count"] == 1
    shown = json.loads(pabal("dead-letters", "show", str(file), "1", "--payloads", "full", "--json").stdout)
    assert (shown["state"], shown["event"]["payload"]["quantity"]) == ("retrying", 41)


def test_ctrl_c_at_a_prompt_exits_with_130_after_a_line_break(file: Path) -> None:
    """Exit code 1 would tell a script that the user had answered no."""
    terminal = Terminal(*_PABAL, "dead-letters", "discard", str(file), "1")
    try:
        terminal.wait_for(lambda screen: "[y/N]" in screen)
        terminal.process.send_signal(signal.SIGINT)
        while "Aborted!" not in terminal.screen and terminal.process.poll() is None:
            if not terminal._read(5.0):  # a signal just before the read begins is handled only after it
                terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 130, terminal.screen
    finally:
        terminal.process.kill()
    assert terminal.screen.splitlines()[-1] == "Aborted!"
