"""A trading application as separate processes over one Redis or Valkey server."""
