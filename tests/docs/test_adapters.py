"""The page on writing a backend: the test file that it shows is one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pabal import InMemoryEventStorage
from pabal.testing.conformance import cases_for

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["adapters.md", "adapters.ko.md"])
def test_the_backend_test_file_of_the_page_runs_unchanged(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer who copies it would get a NameError, or a test that no plugin runs."""
    (source,) = re.findall(r"```text\n(import .*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)

    class MyStorage(InMemoryEventStorage):
        def __init__(self, path: Path) -> None:
            super().__init__()

    backend = ModuleType("my_backend")
    backend.MyStorage = MyStorage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_backend", backend)
    shown: dict[str, Any] = {}
    exec(compile(source, page, "exec", dont_inherit=True), shown)
    shown["test_my_storage_conforms"](cases_for(MyStorage.capabilities, "log")[0], tmp_path)
