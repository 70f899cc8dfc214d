"""Exercise: event filtering; docs/learn/exercise-filtering.md tells the task."""
