"""The health server: what it answers of the gateway, as JSON, as metrics and as a page."""
