"""Putting a trained face into frames and video."""
