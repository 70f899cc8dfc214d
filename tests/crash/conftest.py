from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.disk.build import NoCompilerError, build_disk


@pytest.fixture(scope="session")
def disk_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated disk, compiled. Without a compiler its tests fail, for skipped ones prove nothing."""
    try:
        return build_disk(tmp_path_factory.mktemp("disk"))
    except NoCompilerError as error:
        pytest.fail(str(error), pytrace=False)
