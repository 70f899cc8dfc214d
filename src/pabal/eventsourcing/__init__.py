"""Event-sourced aggregates, stored and published in one append, and read models that follow the log."""

from pabal.eventsourcing.in_memory import InMemoryProjection
from pabal.eventsourcing.projection import Projection
from pabal.eventsourcing.read_model import ProjectionTransaction, projects
from pabal.eventsourcing.repository import Repository
from pabal.eventsourcing.unit_of_work import UnitOfWork

__all__ = [
    "InMemoryProjection",
    "Projection",
    "ProjectionTransaction",
    "Repository",
    "UnitOfWork",
    "projects",
]
