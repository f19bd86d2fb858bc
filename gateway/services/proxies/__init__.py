"""The HTTP proxy and the SOCKS5 server."""
