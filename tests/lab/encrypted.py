"""A resolver of the lab that is asked over TLS: unbound, with a certificate of the test's own."""

from pathlib import Path

from tests.lab.namespace import Namespace
from tests.lab.process import Child, Household

NAME = "dns.example"
PORT = 853

_TEXT = """\
server:
    username: ""
    chroot: ""
    directory: ""
    pidfile: ""
    do-daemonize: no
    use-syslog: no
    logfile: ""
    verbosity: 0
    log-queries: yes
    interface: {address}@{port}
    access-control: 0.0.0.0/0 allow
    tls-service-key: "{certificate}"
    tls-service-pem: "{certificate}"
    tls-port: {port}
{data}
remote-control:
    control-enable: no
"""


class EncryptedResolver:
    """Answers for `names` over TLS at `address` of a namespace; every other name does not exist."""

    def __init__(
        self,
        namespace: Namespace,
        household: Household,
        address: str,
        certificate: Path,
        *,
        port: int = PORT,
        zone: Path | None = None,
        **names: str,
    ) -> None:
        """`certificate` is a file with a key and a certificate. Names have `_` for dots.

        With `zone`, a file with a signed root, it answers from that one alone.
        """
        data = "\n".join(
            f'    local-data: "{name.replace("_", ".")}. 60 A {answer}"'
            for name, answer in names.items()
        )
        data = f'    local-zone: "." static\n{data}'
        if zone:
            data = f'auth-zone:\n    name: "."\n    zonefile: "{zone}"\n    for-upstream: no'
        file = household.file("unbound.conf")
        file.write_text(
            _TEXT.format(address=address, port=port, certificate=certificate, data=data), "utf-8"
        )
        self._child: Child = household.start(
            namespace.command(["unbound", "-c", str(file)]), "encrypted"
        )
        self._child.wait_for("start of service")
        self.upstream = f"{address}@{port}#{NAME}"

    def was_asked(self, name: str) -> bool:
        """Return whether a question for `name` came."""
        return f" {name}. " in self._child.output()

    @property
    def pid(self) -> int:
        """The process."""
        return self._child.pid

    def close(self) -> None:
        """End it."""
        self._child.close()
