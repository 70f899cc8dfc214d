"""A short run of the fuzzing that ``make test-fuzz`` does for ten minutes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.crash.fuzz import fuzz, write_crashed_log

pytestmark = pytest.mark.crash


def test_the_decoder_and_opening_raise_only_typed_errors_on_any_bytes(tmp_path: Path) -> None:
    """Promise 38. Otherwise a malicious file could crash the application, or feed it false events."""
    decoded: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    fuzz(write_crashed_log(tmp_path), 15, decoded, opened)
    assert sum(decoded.values()) >= 200
    assert sum(opened.values()) >= 15
