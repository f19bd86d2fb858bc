"""What the gateway and the process that talks to a torrent client say to each other."""

CHANNEL = 3
"""The descriptor of a socket of that process, which keeps the bounds of messages."""
CONNECT = b"connect"
"""What the process asks for during a look; the answer is a connected socket, or an error number."""
LARGEST = 16 << 10
"""Octets of a message."""
LOOK_TIME = 10.0
"""Seconds that a look may take."""
MOST_CONNECTIONS = 32
"""How many connections it gets for one look."""
