"""Exercise: a distributed bus on Redis; the task is in docs/learn/exercise-redis.md."""
