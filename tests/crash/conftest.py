from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.disk.build import NoCompilerError, build_disk


@pytest.fixture(scope="session")
def disk_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled simulated disk. Without a compiler its tests fail, because skipped tests prove nothing."""
    try:
        return build_disk(tmp_path_factory.mktemp("disk"))
    except NoCompilerError as error:
        pytest.fail(str(error), pytrace=False)
