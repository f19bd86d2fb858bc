"""One GET over TLS, on a socket that is connected already, with limits on size and time.

The certificate has to be one for the host, from an authority that this system trusts (SSL_CERT_FILE
and SSL_CERT_DIR name others, as for every program that uses OpenSSL). Redirections are not
followed: they may lead to another host.
"""

import codecs
import http.client
import socket
import ssl
from dataclasses import dataclass

from gateway.errors import NetworkError
from gateway.model import ServerList

SILENCE = 15.0
"""Seconds that the host may say nothing. How long all of it takes is limited by the caller."""
LONGEST_QUOTED = 100
OK = 200
ENCODINGS = ("ascii", "idna", "iso-8859-1", "utf-8")


@dataclass(frozen=True)
class Request:
    """What is asked for: `agent` is the User-Agent, `largest` the most octets of an answer."""

    listed: ServerList
    agent: str
    largest: int


def trusted() -> ssl.SSLContext:
    """Return which certificates are trusted. Raises NetworkError without any.

    After that, `get` reads no file, so that it can be called by who may read none.
    """
    for encoding in ENCODINGS:  # Python imports them when they are first used
        codecs.lookup(encoding)
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        raise NetworkError("there are no certificate authorities: install ca-certificates", "TLS")
    return context


def get(channel: socket.socket, request: Request, context: ssl.SSLContext) -> bytes:
    """Return the body of the answer; closes `channel`. Raises NetworkError."""
    listed = request.listed
    subject = listed.url
    connection = http.client.HTTPConnection(listed.host, listed.port)
    try:
        channel.settimeout(SILENCE)
        connection.sock = context.wrap_socket(channel, server_hostname=listed.host)
        headers = {"User-Agent": request.agent, "Accept": "application/json", "Connection": "close"}
        connection.request("GET", listed.target, headers=headers)
        answer = connection.getresponse()
        if answer.status != OK:
            raise NetworkError(f"HTTP {answer.status} {_quoted(answer.reason)}", subject)
        body = answer.read(request.largest + 1)
        if answer.length:  # `read` with a limit raises nothing
            raise NetworkError("the answer ends early, or is too large", subject)
    except ssl.SSLCertVerificationError as err:
        raise NetworkError(f"certificate: {_quoted(err.verify_message)}", subject) from err
    except TimeoutError as err:
        raise NetworkError(f"silent for {SILENCE:g} s", subject) from err
    except (OSError, http.client.HTTPException) as err:
        what = getattr(err, "strerror", None) or str(err) or type(err).__name__
        raise NetworkError(_quoted(what), subject, getattr(err, "errno", None)) from err
    finally:
        connection.close()
        channel.close()
    if len(body) > request.largest:
        raise NetworkError(f"larger than {request.largest >> 20} MiB", subject)
    return body


def _quoted(text: str) -> str:
    """Return a text of the host that can go into a log."""
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text[:LONGEST_QUOTED])
