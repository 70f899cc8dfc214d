"""Buses whose events travel through a server, between processes and machines."""
