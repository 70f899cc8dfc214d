"""Exercise: CQRS with event sourcing; docs/learn/exercise-cqrs.md tells the task."""
