"""The in-memory storage does what every storage must."""

import pytest

from pabal import InMemoryEventStorage
from pabal.testing.conformance import Case, cases_for


@pytest.mark.parametrize("case", cases_for(InMemoryEventStorage.capabilities), ids=str)
async def test_the_in_memory_storage_conforms(case: Case) -> None:
    """It is the model that the others are compared with."""
    await case(InMemoryEventStorage)
