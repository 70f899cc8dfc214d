"""Commands in hints can be pasted into the current shell."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from pabal.cli.demo_files import resume_command
from pabal.cli.shell import typed


def test_arguments_are_quoted_for_the_current_platforms_shell() -> None:
    """On Windows, the quotes of a POSIX shell would be taken for a part of the file's name."""
    words = ["pabal", "demo", "--file", r"C:\My data\x.db"]
    assert typed(words, windows=True) == r'pabal demo --file "C:\My data\x.db"'
    assert typed(words, windows=False) == r"pabal demo --file 'C:\My data\x.db'"


def test_a_hint_names_a_program_on_path_without_its_file_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, every hint would begin with the full path of the environment."""
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "pabal")])
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / f"{name}.EXE"))
    assert resume_command(None) == "pabal demo --resume"
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / "other" / f"{name}.EXE"))
    assert resume_command(None) == f"{tmp_path / 'pabal'} demo --resume"
