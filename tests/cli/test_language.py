"""The language is that of the option, the environment, or the locale."""

from __future__ import annotations

import locale
from pathlib import Path

import pytest

from tests.cli.conftest import Pabal


def test_lang_overrides_pabal_lang_which_overrides_the_locale(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's scripts would print in the language of each machine."""
    korean = "조건에 맞는 이벤트가 없습니다\n"
    empty = ["events", "list", file, "--since", "2999-01-01"]
    assert pabal(*empty).output == "no event matches\n"
    monkeypatch.delenv("LANG")
    assert pabal(*empty).output == "no event matches\n"
    monkeypatch.setenv("LANG", "ko_KR.UTF-8")
    assert pabal(*empty).output == korean
    monkeypatch.setenv("PABAL_LANG", "en")
    assert pabal(*empty).output == "no event matches\n"
    assert pabal("--lang", "ko", *empty).output == korean
    assert "버스의 상태와 이유를" in pabal("--lang", "ko", "status", "--help").output


def test_the_character_locale_decides_the_language_if_no_variable_is_set(
    pabal: Pabal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows sets none of these variables, and all Korean users would get English."""
    monkeypatch.delenv("LANG")
    for locales, result in (
        ("Korean_Korea.949", "조건에 맞는 이벤트가 없습니다\n"),
        ("English_United States.1252", "no event matches\n"),
    ):
        monkeypatch.setattr(locale, "setlocale", lambda category, found=locales: found)
        assert pabal("events", "list", file, "--since", "2999-01-01").output == result
