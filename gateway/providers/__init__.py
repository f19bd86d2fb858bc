"""VPN providers: how each publishes its servers, and which of them a user wants.

Pure: a list goes in, servers come out. Nothing here reads a file or the network. A list is
untrusted input, so whatever does not have the documented form is left out, and the sizes of what is
kept have limits (`entries`).
"""
