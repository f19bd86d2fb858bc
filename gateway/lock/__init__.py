"""The first kernel act: closes the namespace before anything heavy is imported."""
