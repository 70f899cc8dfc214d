"""The examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import tomllib
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

import pabal
from pabal.domain.registry import registry
from tests.docs.pages import ROOT


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


_WITHOUT = {
    "serve": "blocks until Ctrl-C",
    "run_in_qt": "needs a binding of Qt, and a window",
    "examine_redis": "needs a server",
    "BusSource": "is made by operations_of()",
    "CutShort": "is a value",
    "EventRegistry": "there is one, and classes enter it by themselves",
    "GroupSource": "is made by open_operations()",
    "ProjectionTransaction": "is handed to the methods of a Projection",
    "Relay": "is made by relay()",
    "StorageSource": "is made by operations_of()",
}
_PLAIN = (BaseException, msgspec.Struct, Protocol)
"""Bases of classes that users do not create or call themselves: errors and warnings, records, ports."""


def _exported() -> list[tuple[str, Any]]:
    """Return the functions, and the classes that do something, of every package of the reference."""
    plan = tomllib.loads((ROOT / "docs" / "site" / "plan.toml").read_text("utf-8"))
    packages = [name for section in plan["section"] for name in section.get("reference", ())]
    found: dict[str, Any] = {}
    for package in map(importlib.import_module, packages):
        found |= {name: getattr(package, name) for name in package.__all__}
    return [
        (name, value)
        for name, value in sorted(found.items())
        if inspect.isfunction(value)
        or (inspect.isclass(value) and not any(base in _PLAIN for base in value.__mro__))
    ]


def _shows(value: Any) -> bool:
    """Return whether a docstring, or that of a method, has an example."""
    members = vars(value).values() if inspect.isclass(value) else ()
    plain = [getattr(one, "__func__", one) for one in members]
    return any(">>> " in (getattr(one, "__doc__", None) or "") for one in [value, *plain])


@pytest.mark.parametrize(("name", "value"), _exported(), ids=lambda one: one if isinstance(one, str) else "")
def test_public_names_have_an_example_or_point_to_one(name: str, value: Any) -> None:
    """help() would describe a name without showing how to use it."""
    if name in _WITHOUT:
        return
    text = " ".join((value.__doc__ or "").split())
    pointed = re.findall(r"``(\w+)`` shows an example", text)
    exported = {**dict(_exported()), "EventBus": pabal.EventBus}
    assert _shows(value) or any(_shows(exported[each]) for each in pointed)


def test_the_search_for_docstring_examples_finds_known_modules() -> None:
    """A search that comes back empty would let the test above always pass."""
    assert {"pabal.domain.event", "pabal.delivery.retry", "pabal.delivery.watermark"} <= set(_WITH_EXAMPLES)
