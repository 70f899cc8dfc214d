from __future__ import annotations

from collections.abc import Iterator

import pytest

from pabal.domain import registry


@pytest.fixture(autouse=True)
def _forgotten_classes() -> Iterator[None]:
    """Forget the event classes that a test defines."""
    with registry.isolated():
        yield
