"""The conformance suite itself: it finds defects of a storage, and describes them."""

import asyncio
from typing import Any

import pytest

from pabal import InMemoryEventStorage
from pabal.ports.storage import Capabilities
from pabal.testing.conformance import PORTS, Case, cases_for
from pabal.testing.conformance.case import StorageFactory, cases_of, check, expect_equal, expect_error
from tests.conformance.defects import DEFECTS, DropsFirstElement

SIMPLEST = Capabilities(persistent=False, shared=False, aggregates=True, inspectable=True)


def find_case(name: str) -> Case:
    [found] = [case for case in cases_for(SIMPLEST) if str(case) == name]
    return found


@pytest.mark.parametrize(("storage", "name"), DEFECTS)
async def test_the_suite_finds_each_storage_defect(storage: Any, name: str) -> None:
    """A backend with that defect would count as conforming."""
    with pytest.raises(AssertionError) as caught:
        await find_case(name)(storage)
    assert len(str(caught.value)) > 20


def test_capabilities_select_the_cases() -> None:
    """A storage in memory would be required to survive its end."""
    carrier = Capabilities(
        persistent=False, shared=False, versioned=False, searchable=False, controllable=False
    )
    persistent = Capabilities(persistent=True, shared=False)
    everything = Capabilities(persistent=True, shared=True, aggregates=True, inspectable=True)
    needs = [
        {need for case in cases_for(capabilities) for need in case.needs}
        for capabilities in (carrier, SIMPLEST, persistent, everything)
    ]
    beyond = {"versioned", "searchable", "controllable"}
    whole = {*beyond, "aggregates", "inspectable"}
    assert needs == [set(), whole, {*beyond, "persistent"}, {*whole, "persistent", "shared"}]
    left_out = {"streams", "aggregates", "queries", "controls", "inspection"}
    assert {case.port for case in cases_for(carrier)} == set(PORTS) - left_out


def test_every_port_has_cases_with_a_sentence_and_a_unique_name() -> None:
    """A report of failures would use one name for two cases, or say nothing."""
    everything = Capabilities(persistent=True, shared=True, aggregates=True, inspectable=True)
    for port in PORTS:
        found = cases_for(everything, port)
        assert found
        assert {case.port for case in found} == {port}
    names = [str(case) for case in cases_for(everything)]
    assert len(set(names)) == len(names)
    assert all(case.sentence.endswith(".") for case in cases_for(SIMPLEST))


async def test_a_case_that_hangs_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that loses a wake-up would block the whole run."""

    async def hang(factory: StorageFactory) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("pabal.testing.conformance.case.SECONDS", 0.01)
    with pytest.raises(AssertionError, match="not over after"):
        await Case("log", "hang", "Hang.", (), hang)(InMemoryEventStorage)


async def test_an_unexpected_error_in_a_case_reports_the_expectation() -> None:
    """A backend that returns too few rows would fail with a ValueError about unpacking."""

    async def fail(factory: StorageFactory) -> None:
        raise ValueError("not enough values")

    with pytest.raises(AssertionError, match=r"log: fail: All is there\. It ended with ValueError"):
        await Case("log", "fail", "All is there.", (), fail)(InMemoryEventStorage)


async def test_missing_rows_are_reported_as_a_count_not_as_an_unpacking_error() -> None:
    """The author of a backend would have to read the suite to see what was missing."""
    messages: list[str] = []
    for case in cases_for(SIMPLEST, "dead_letters", "bus dead letters", "inspection"):
        try:
            await case(DropsFirstElement)
        except AssertionError as error:
            messages.append(str(error))
    assert len([each for each in messages if "how many" in each]) > 10
    assert not [each for each in messages if "unpack" in each]


async def test_expectations_report_the_expected_and_the_actual_value() -> None:
    """A failure would say nothing but False."""

    async def answer() -> int:
        return 5

    async def fail() -> int:
        raise KeyError("x")

    with pytest.raises(AssertionError, match="the sum: expected 4, got 5"):
        expect_equal(5, 4, "the sum")
    with pytest.raises(AssertionError, match="it rains"):
        check(False, "it rains")
    with pytest.raises(AssertionError, match="expected ValueError, but it returned 5"):
        await expect_error(ValueError, answer(), "a call")
    with pytest.raises(AssertionError, match=r"expected ValueError, got KeyError\('x'\)"):
        await expect_error(ValueError, fail(), "a call")
    assert isinstance(await expect_error(KeyError, fail(), "a call"), KeyError)


def test_helpers_of_a_module_are_not_cases() -> None:
    """``take``, a helper of the subscription cases, would be run as a case, without arguments."""
    from pabal.testing.conformance import subscriptions

    assert "take" not in {case.name for case in cases_of("subscriptions", subscriptions)}
