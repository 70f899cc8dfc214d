"""A short run of the fuzzing that ``make test-fuzz`` does for ten minutes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.crash.fuzz import fuzz, write_whole

pytestmark = pytest.mark.crash


def test_no_bytes_make_the_decoder_or_the_opener_raise_anything_untyped(tmp_path: Path) -> None:
    """Promise 38. Otherwise a malicious file could crash the application, or feed it false events."""
    decoded: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    fuzz(write_whole(tmp_path), 15, decoded, opened)
    assert sum(decoded.values()) >= 200
    assert sum(opened.values()) >= 15
