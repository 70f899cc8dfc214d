"""The SQLite storage passes every conformance case."""

from pathlib import Path

import pytest

from pabal import SqliteEventStorage
from pabal.testing.conformance import Case, cases_for


@pytest.mark.parametrize("case", cases_for(SqliteEventStorage.capabilities), ids=str)
async def test_the_sqlite_storage_conforms(case: Case, tmp_path: Path) -> None:
    """An application that moves from one storage to the other would find different rules."""
    await case(lambda: SqliteEventStorage(tmp_path / "log.db"))
