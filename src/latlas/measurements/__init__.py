"""Encodings and images to numbers with units: pure functions."""
