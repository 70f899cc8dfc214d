"""A web service that commits orders and events together, and handles the events after the response."""
