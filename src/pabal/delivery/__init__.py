"""Delivery: how each event reaches the handler of each subscription, and what follows a failure."""
