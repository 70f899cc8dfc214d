"""The in-memory storage passes every conformance case."""

import pytest

from pabal import InMemoryEventStorage
from pabal.testing.conformance import Case, cases_for


@pytest.mark.parametrize("case", cases_for(InMemoryEventStorage.capabilities), ids=str)
async def test_the_in_memory_storage_conforms(case: Case) -> None:
    """The other storages are compared with it, so its mistakes would go unnoticed."""
    await case(InMemoryEventStorage)
