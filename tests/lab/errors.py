"""What the lab raises when the machine or a helper does not do what it should."""


class LabError(Exception):
    """A command, a helper process or a wait of the lab failed; the message holds its output."""
