"""Exercise: CQRS with event sourcing; the task is in docs/learn/exercise-cqrs.md."""
