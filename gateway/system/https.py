"""One request over TLS, on a socket that is connected already, with limits on size and time.

The certificate has to be one for the host, from an authority that this system trusts (SSL_CERT_FILE
and SSL_CERT_DIR name others, as for every program that uses OpenSSL). Redirections are not
followed: they may lead to another host.
"""

import codecs
import http.client
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path

from gateway import __version__
from gateway.errors import NetworkError
from gateway.model import Errand
from gateway.model.frozen import frozen

SILENCE = 15.0
"""Seconds that the host may say nothing. How long all of it takes is limited by the caller."""
PART = 1 << 16
"""Octets that are read at a time. http.client keeps some 40 for a chunk of two until then."""
LONGEST_QUOTED = 100
AGENT = f"portcullis/{__version__}"
OK = 200
ENCODINGS = ("ascii", "idna", "iso-8859-1", "utf-8")


@frozen
class Request:
    """What is asked for: `largest` is the most octets of an answer.

    With `form` it is a POST of that (application/x-www-form-urlencoded), with `bearer` it has that
    token (RFC 6750, section 2.1). These two and `query` are secrets: nothing of them, or of what
    the host says about them, is in an error.
    """

    errand: Errand
    largest: int
    query: str = ""
    form: str = ""
    accept: str = "application/json"
    bearer: str = ""


class StatusError(NetworkError):
    """The host answers with another status than 200."""

    def __init__(self, status: int, reason: str, subject: str) -> None:
        super().__init__(f"HTTP {status} {reason}".rstrip(), subject)
        self.status = status


def trusted_alone(authority: Path) -> ssl.SSLContext:
    """Return that only the certificates in a file are trusted, and none of the system's.

    They may lack what RFC 5280 asks of authorities (VERIFY_X509_STRICT is off), and a certificate
    without other names may have its host's as common name. Raises NetworkError.
    """
    _import_encodings()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(authority)
    except OSError as err:
        raise NetworkError(f"read the authority: {err.strerror}", str(authority)) from err
    return context


def _import_encodings() -> None:
    for encoding in ENCODINGS:  # Python imports them when they are first used
        codecs.lookup(encoding)


def trusted() -> ssl.SSLContext:
    """Return which certificates are trusted. Raises NetworkError without any.

    After that, `get` reads no file, so that it can be called by who may read none.
    """
    _import_encodings()
    context = ssl.create_default_context()
    named = os.environ.get("SSL_CERT_DIR", "")  # noqa: TID251 - as OpenSSL does
    for directory in filter(None, named.split(":")):
        _load(context, Path(directory))
    if not context.cert_store_stats()["x509_ca"]:
        raise NetworkError("there are no certificate authorities: install ca-certificates", "TLS")
    return context


def _load(context: ssl.SSLContext, directory: Path) -> None:
    """Trust the authorities in a directory, which OpenSSL reads only when it is to know one.

    Their names are a hash and a number (SSL_CTX_load_verify_locations(3)); those that cannot be
    read are left out, as there.
    """
    for file in directory.glob("????????.[0-9]*"):
        with suppress(OSError):
            context.load_verify_locations(file)


def get(channel: socket.socket, request: Request, context: ssl.SSLContext) -> bytes:
    """Return the body of the answer; closes `channel`. Raises NetworkError, StatusError."""
    errand, form = request.errand, request.form
    is_private = bool(form or request.query or request.bearer)
    target = errand.target + (f"?{request.query}" if request.query else "")
    subject = errand.url
    connection = http.client.HTTPConnection(errand.host, errand.port)
    try:
        channel.settimeout(SILENCE)
        # An end that TLS has not announced is an error: the answer may have been cut off.
        connection.sock = context.wrap_socket(
            channel, server_hostname=errand.host, suppress_ragged_eofs=False
        )
        headers = {"User-Agent": AGENT, "Accept": request.accept, "Connection": "close"}
        if request.bearer:
            headers["Authorization"] = f"Bearer {request.bearer}"
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("POST" if form else "GET", target, form.encode() or None, headers)
        answer = connection.getresponse()
        if answer.status != OK:
            reason = "" if is_private else _reason(answer)
            raise StatusError(answer.status, reason, subject)
        return _body(answer, request.largest, subject)
    except ssl.SSLCertVerificationError as err:
        raise NetworkError(f"certificate: {_quoted(err.verify_message)}", subject) from err
    except TimeoutError as err:
        raise NetworkError(f"silent for {SILENCE:g} s", subject) from err
    except ssl.SSLEOFError as err:
        raise NetworkError("the answer ends early", subject) from err
    except ValueError as err:  # a part of less than no octets
        raise NetworkError("the answer is not HTTP", subject) from err
    except (OSError, http.client.HTTPException) as err:
        said = "" if is_private else str(err)
        what = getattr(err, "strerror", None) or said or type(err).__name__
        raise NetworkError(_quoted(what), subject, getattr(err, "errno", None)) from err
    finally:
        connection.close()
        channel.close()


def _body(answer: http.client.HTTPResponse, largest: int, subject: str) -> bytes:
    """Return the whole body. Raises NetworkError, and what reading it raises."""
    if encoding := answer.headers.get("Content-Encoding", ""):
        raise NetworkError(f"the answer is encoded ({_quoted(encoding)})", subject)
    body, left = bytearray(), 0 if (answer.length or 0) > largest else largest + 1
    while left and (part := answer.read(min(left, PART))):
        body += part
        left -= len(part)
    if not left:
        size = f"{largest >> 20} MiB" if largest >> 20 else f"{largest >> 10} KiB"
        raise NetworkError(f"larger than {size}", subject)
    if answer.length:  # `read` with a limit raises nothing
        raise NetworkError("the answer ends early", subject)
    return bytes(body)


def _reason(answer: http.client.HTTPResponse) -> str:
    """Return what the host says about a status that is not 200."""
    where = answer.headers.get("Location", "")
    leads = f", which leads to {_quoted(where)}" if where else ""
    return f"{_quoted(answer.reason)}{leads}"


def _quoted(text: str) -> str:
    """Return a text of the host that can go into a log."""
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text[:LONGEST_QUOTED])
