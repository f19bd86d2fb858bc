"""`gateway doctor`: one text for a bug report, without secrets.

Each part is read by itself: one that cannot be read says why, and the others are there.
"""
