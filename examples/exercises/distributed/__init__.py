"""Exercise: a distributed bus on Redis; docs/learn/exercise-redis.md tells the task."""
