"""The control API: its process, and what it may ask of the loop."""
