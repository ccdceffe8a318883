"""Whose mark the tests put in."""

CONSENT = "0123456789abcdef0123456789abcdef"
KEY = bytes(range(32))
