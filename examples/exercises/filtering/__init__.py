"""Exercise: event filtering; the task is in docs/learn/exercise-filtering.md."""
