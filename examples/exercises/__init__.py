"""Exercises of the learning path: a start, tests to run, and a solution each."""
