"""The pytest plugin, as found by an application's test run when pabal is installed."""

import subprocess
import sys

import pytest

APPLICATION_TEST = """
import asyncio
from pabal import DomainEvent

class Rang(DomainEvent):
    bell: str

def test_rings(event_bus, recorded_events, virtual_clock):
    async def ring():
        attempts = []
        async def handle(event):
            attempts.append(virtual_clock.monotonic())
            if len(attempts) == 1:
                raise ValueError("too loud")
        event_bus.subscribe(Rang, handle, name="ear")
        async with event_bus:
            await event_bus.publish(Rang("a"))
            await virtual_clock.advance(3600)
            await event_bus.drain()
        assert attempts[0] == 0.0 and attempts[1] > 0.0
        assert recorded_events.published == [Rang("a")]
        assert recorded_events.handled_by("ear") == [Rang("a")]
    asyncio.run(ring())
"""


def test_the_fixtures_are_available_without_configuration(pytester: pytest.Pytester) -> None:
    """The plugin would be installed, but unknown to pytest."""
    pytester.makepyfile(APPLICATION_TEST)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_the_plugin_imports_nothing_of_the_bus_if_no_fixture_is_used(pytester: pytest.Pytester) -> None:
    """Coverage of an application that extends pabal would start too late, and test runs be slower."""
    pytester.makepyfile(
        """
        import sys

        def test_imports_nothing_of_the_bus():
            loaded = {name for name in sys.modules if name.partition(".")[0] == "pabal"}
            assert loaded <= {"pabal", "pabal.testing", "pabal.testing.pytest_plugin"}
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_pabal_testing_works_without_pytest() -> None:
    """An application would have to install pytest in production."""
    script = (
        "import sys; sys.modules['pytest'] = None\n"
        "import pabal.testing.conformance\n"
        "from pabal.testing import Delivery, EventRecorder, VirtualClock\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_unknown_name_of_pabal_testing_raises_attribute_error() -> None:
    """``hasattr`` and ``from … import`` would raise something else."""
    import pabal.testing

    assert not hasattr(pabal.testing, "no_such_name")
