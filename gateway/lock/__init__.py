"""Closes the namespace before anything heavy is imported."""
