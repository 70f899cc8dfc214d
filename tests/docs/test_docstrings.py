"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import pabal
from pabal.domain.registry import registry


def _modules() -> list[str]:
    found = pkgutil.walk_packages(pabal.__path__, "pabal.")
    return sorted(module.name for module in found if not module.name.endswith("__main__"))


def _examples_of(name: str) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(importlib.import_module(name)) if test.examples]


_WITH_EXAMPLES = [name for name in _modules() if _examples_of(name)]


@pytest.mark.parametrize("name", _WITH_EXAMPLES)
def test_the_docstring_examples_of_a_module_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What help() shows as an example would not work."""
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    for test in _examples_of(name):
        report: list[str] = []
        with registry.isolated():
            runner.run(test, out=report.append)
        assert not runner.failures, "".join(report)


def test_the_search_for_docstring_examples_finds_them() -> None:
    """A search that comes back empty would let the test above pass for ever."""
    assert {"pabal.domain.event", "pabal.delivery.retry", "pabal.delivery.watermark"} <= set(_WITH_EXAMPLES)
