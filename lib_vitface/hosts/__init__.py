"""Adapters to where the product runs."""
