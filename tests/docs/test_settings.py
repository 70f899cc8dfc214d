"""Every setting and report that there is is described, and every one that is described is there."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from pabal import InMemoryEventBus, SqliteEventStorage, factory
from pabal.brokers.redis import RedisEventBus, reports
from pabal.dashboard import create_dashboard
from pabal.dashboard.settings import DashboardSettings
from pabal.ports.telemetry import Report
from tests.docs.pages import ROOT, first_column, section_of

_DOCS = ROOT / "docs"
_SOURCE = ROOT / "src" / "pabal"


def _table(page: Path, header: str) -> list[str]:
    """Return the first column of the table of a page that begins with a header."""
    (found,) = re.findall(rf"^{re.escape(header)}.*\n(?:\|.*\n?)+", page.read_text("utf-8"), re.MULTILINE)
    return first_column(found.partition("\n")[2])


@pytest.mark.parametrize(
    ("page", "header"), [("dashboard.md", "| option |"), ("dashboard.ko.md", "| 옵션 |")]
)
def test_the_page_describes_exactly_the_options_of_the_dashboard(page: str, header: str) -> None:
    """Readers would not learn of an option that protects a dashboard."""
    assert _table(_DOCS / page, header) == list(DashboardSettings.__struct_fields__)


def test_the_docstring_describes_exactly_the_dashboard_options() -> None:
    """They are taken as keywords of any name, so no signature shows them."""
    text = (create_dashboard.__doc__ or "").partition("Options:")[2].partition("Raises")[0]
    named = set(re.findall(r"``(\w+)``", text)) - {"prometheus"}  # an extra
    assert named == set(DashboardSettings.__struct_fields__)


@pytest.mark.parametrize(("page", "header"), [("redis.md", "| option |"), ("redis.ko.md", "| 옵션 |")])
def test_the_page_describes_exactly_the_options_of_a_bus_on_redis(page: str, header: str) -> None:
    """Readers would not learn how to set how long a process may be away."""
    made = set(inspect.signature(RedisEventBus).parameters) - {"url"}
    shared = {"worker_count", "max_queue_size", "backpressure", "clock", "seed"}  # those of every bus
    assert set(_table(_DOCS / page, header)) - shared == made - shared


@pytest.mark.parametrize(("page", "heading"), [("guide.md", "Storage"), ("guide.ko.md", "저장소")])
def test_the_guide_describes_every_option_of_a_file(page: str, heading: str) -> None:
    """Readers would not learn how to choose the durability of events."""
    text = section_of(_DOCS / page, heading)
    options = set(inspect.signature(SqliteEventStorage).parameters) - {"path"}
    assert {name for name in options if f"{name}=" not in text and f"`{name}`" not in text} == set()


def test_every_url_setting_is_an_option_of_its_bus_or_storage() -> None:
    """A setting of a URL would be refused by the bus that gets it, or be described nowhere."""
    of_bus = set(inspect.signature(InMemoryEventBus).parameters)
    of_file = set(inspect.signature(SqliteEventStorage).parameters)
    of_server = set(inspect.signature(RedisEventBus).parameters)
    assert set(factory._BUS_SETTINGS) <= of_bus
    assert set(factory._STORAGE_OPTIONS) == of_file - {"path"}
    assert set(factory._REDIS_SETTINGS) | set(factory._INTEGERS) <= of_server


@pytest.mark.parametrize("language", ["", ".ko"], ids=["english", "korean"])
def test_the_pages_name_every_environment_variable(language: str) -> None:
    """A variable would change what a program does without being documented."""
    read = {
        node.value
        for file in _SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"PABAL_[A-Z_]+", node.value)
    }
    assert read == {"PABAL_LANG", "PABAL_DASHBOARD_TOKEN"}
    text = "".join((_DOCS / f"{name}{language}.md").read_text("utf-8") for name in ("cli", "dashboard"))
    assert {name for name in read if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(("page", "header"), [("redis.md", "| report |"), ("redis.ko.md", "| 보고 |")])
def test_the_page_describes_exactly_the_reports_of_a_bus_on_redis(page: str, header: str) -> None:
    """An alert on lost events would never be written, or wait for what never comes."""
    made = {name for name, value in vars(reports).items() if _is_report(value)}
    assert set(_table(_DOCS / page, header)) == made


def _is_report(value: object) -> bool:
    bases = (Report, reports.PartitionReport)
    return inspect.isclass(value) and issubclass(value, Report) and value not in bases
