"""The options of `gateway init`."""

import argparse
from pathlib import Path


def add_init(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "init", help="write a compose file and its secrets, and check them; asks on a terminal"
    )
    for option, metavar, said in (
        ("--provider", "NAME", "mullvad and others: its servers"),
        ("--countries", "A,B", "of its servers"),
        ("--endpoint", "ADDRESS:PORT", "a server of your own"),
        ("--public-key", "KEY", "that of the server"),
        ("--addresses", "A,B", "yours in the tunnel"),
        ("--dns", "A,B", "the resolvers in the tunnel"),
        ("--lan", "A,B", "subnets that workloads may reach outside the tunnel"),
    ):
        parser.add_argument(option, metavar=metavar, help=said)
    for option, said in (
        ("--file", "the WireGuard file from your provider, in place of the options above"),
        ("--private-key-file", "a file with your private key; - for standard input"),
        ("--preshared-key-file", "the same for a preshared key"),
    ):
        parser.add_argument(option, type=Path, metavar="FILE", help=said)
    parser.add_argument(
        "--port",
        action="append",
        default=[],
        metavar="[HOST:]PORT",
        help="a port of your container that your network may reach; may be repeated",
    )
    parser.add_argument("--image", default="portcullis", help="the gateway's (portcullis)")
    parser.add_argument("--workload", default="nginx", metavar="IMAGE", help="your container's")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to write (here)")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
