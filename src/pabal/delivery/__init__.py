"""Delivery: one event, one subscription, one outcome."""
