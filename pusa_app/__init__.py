"""Pusa Studio: frame-level control over AI video."""

__version__ = "0.3.0"
