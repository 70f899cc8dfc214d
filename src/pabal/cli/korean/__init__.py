"""The catalogues of Korean: what the command line says, what Click says, what the library says."""
