"""Clawback: contains a rogue AI agent in milliseconds, proves it, and walks the incident to its end."""

__version__ = "0.1.0"
