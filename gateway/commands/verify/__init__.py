"""What an operator would do by hand to believe the gateway, as one command: `gateway verify`.

The kernel's rules, guard and routes are read and compared with what they should be. Every way
around the tunnel is tried for real, from inside the container, while a witness listens to what
leaves by the uplinks. Whatever gets out would go to addresses that are reserved for documentation
(RFC 5737, RFC 3849) and reach no host, to a resolver on the link, or to the user's own server.
"""
