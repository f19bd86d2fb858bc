"""What an operator would do by hand to believe the gateway, as one command: `gateway verify`.

Every way around the tunnel is tried for real, from inside the container, while a witness listens to
what leaves by the uplinks. Whatever gets out would go to addresses that are reserved for
documentation (RFC 5737, RFC 3849) and reach nobody.
"""
