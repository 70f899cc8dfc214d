"""The fixtures that applications' tests get, for pabal's own; see ``addopts`` in pyproject.toml."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["pabal.testing.pytest_plugin", "pytester"]

# A busy machine makes drawing examples slow, and that says nothing about what is tested.
settings.register_profile("pabal", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pabal")
