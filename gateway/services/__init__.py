"""What others talk to; nothing here decides."""
