"""A web service whose orders and events commit together, and whose handlers work behind the answer."""
