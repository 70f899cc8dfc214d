"""Explore a log in a Jupyter notebook, and plot it."""
