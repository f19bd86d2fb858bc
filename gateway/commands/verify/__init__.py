"""`gateway verify`: what an operator would check by hand before trusting the gateway.

It reads the kernel's rules, guard and routes and compares them with the configuration. It attempts
every way around the tunnel from inside the container, while packet sockets watch each uplink. A
packet that gets out goes to an address reserved for documentation (RFC 5737, RFC 3849), which
reaches no host, to a resolver on the link, or to the user's own server.
"""
