"""Forwarded ports: what asks for them, and who hears of them."""
