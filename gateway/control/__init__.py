"""The server of the control API: a process without rights, which asks the gateway by messages.

It imports nothing that decides. `gateway.services.control.service` starts it and answers it.
"""
