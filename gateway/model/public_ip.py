"""Frozen values of the look-up of the public address."""

from dataclasses import field
from enum import StrEnum

from gateway.model.errands import Errand
from gateway.model.frozen import frozen
from gateway.model.secret import Secret

FILE = "/tmp/gluetun/ip"  # noqa: S108 - where other programs look for it
"""The file that the address is written to, where no variable names another one."""


class ApiKind(StrEnum):
    """A form of the answers about an address: the names that gluetun has for the services."""

    IPINFO = "ipinfo"
    IFCONFIG_CO = "ifconfigco"
    IP2LOCATION = "ip2location"
    CLOUDFLARE = "cloudflare"
    ECHOIP = "echoip"


@frozen
class AddressApi(Errand):
    """A service that says which address a request has come from; `token` is that of an account."""

    kind: ApiKind = field(kw_only=True)
    token: Secret | None = field(default=None, kw_only=True)


@frozen
class PublicIp:
    """The address is asked of `apis`, the first ones preferred, and written to `file`."""

    apis: tuple[AddressApi, ...]
    file: str = FILE
