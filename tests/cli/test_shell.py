"""Commands in hints can be pasted into the current shell."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pabal.cli.demo_files import resume_command
from pabal.cli.shell import typed


def test_words_are_held_together_as_the_shell_at_hand_wants_it() -> None:
    """On Windows, the quotes of a POSIX shell would be taken for a part of the file's name."""
    words = ["pabal", "demo", "--file", r"C:\My data\x.db"]
    assert typed(words, windows=True) == r'pabal demo --file "C:\My data\x.db"'
    assert typed(words, windows=False) == r"pabal demo --file 'C:\My data\x.db'"


def test_a_program_found_by_its_name_is_called_by_it_though_its_file_has_a_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, every hint would begin with the full path of the environment."""
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "pabal")])
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / f"{name}.EXE"))
    assert resume_command(None) == "pabal demo --resume"
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / "other" / f"{name}.EXE"))
    assert resume_command(None) == f"{tmp_path / 'pabal'} demo --resume"
