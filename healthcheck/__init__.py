"""What Docker's HEALTHCHECK runs: standard library only."""
