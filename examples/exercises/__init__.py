"""The exercises of the learning path, each with a start, tests to run, and a solution."""
