"""The command of Docker's HEALTHCHECK: standard library only."""
