"""Fit the laws' constants to measurements."""
