"""Measures of quality, each by the name it deserves."""
