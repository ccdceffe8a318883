"""Consent, marks and records: what makes an output known as synthetic."""
