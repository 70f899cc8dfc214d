"""The trading domain. It uses only ``pabal.domain``: no bus and no database."""
