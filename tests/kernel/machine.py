"""One virtual machine: started, listened to, ended for certain."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.kernel.image import Image
from tests.kernel.project import Run, write_disk

_MEMORY = 1024  # MiB
# Every one of these was needed: `max` crashes the guest, and so does a second processor; QEMU 7.2
# now and then loses the processor's flags in cmpxchg16b, on which the guest's allocator then dies
# with a double fault, so that instruction is taken away.
_PROCESSOR = ("-accel", "tcg,thread=multi", "-cpu", "qemu64,-cx16", "-smp", "1")
_KERNEL_LINE = "console=ttyS0 quiet root=/dev/vda rw init=/sbin/guest-init panic=-1"
_CONSOLE_LINES = 60
_INTERVAL = 0.1  # seconds between looks at the results
_PLACE = "/var/tmp"  # noqa: S108 - names are made by mkdtemp, and /tmp may be memory
_PREFIX = "portcullis-guest-"


class Machine:
    """A booted guest that works through its tests and then switches itself off."""

    def __init__(self, image: Image, runs: Sequence[Run]) -> None:
        """Write the second disk and start the machine; raises LabError or OSError."""
        _sweep()
        self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_PLACE))
        try:
            disk = self._directory / "project.ext4"
            workshop = self._directory / "workshop"
            workshop.mkdir()
            write_disk(disk, image, runs, workshop)
            shutil.rmtree(workshop)
            self._console = self._directory / "console"
            results = self._directory / "results"
            results.touch()
            with (self._directory / "qemu").open("wb") as output:
                self._process = subprocess.Popen(
                    self._command(image, disk, results),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"TMPDIR": str(self._directory)},
                )
            self._results = results.open("rb")
        except BaseException:
            shutil.rmtree(self._directory)
            raise
        self._partial = b""

    def _command(self, image: Image, disk: Path, results: Path) -> list[str]:
        # Both disks are thrown away; the machine ends with this process, however that ends.
        return [
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", *_PROCESSOR),
            *("-m", str(_MEMORY), "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot"),
            *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", _KERNEL_LINE),
            *("-drive", f"file={image.disk},if=virtio,format=raw,snapshot=on"),
            *("-drive", f"file={disk},if=virtio,format=raw,snapshot=on"),
            *("-serial", f"file:{self._console}", "-device", "virtio-rng-pci"),
            *("-device", "virtio-serial-pci", "-chardev", f"file,id=results,path={results}"),
            *("-device", "virtserialport,chardev=results,name=results"),
        ]

    def event(self, timeout: float) -> dict[str, Any] | None:
        """Return the next event of the guest, or None: it has ended, or `timeout` s are over."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.ended
            self._partial += self._results.readline()
            if self._partial.endswith(b"\n"):
                line, self._partial = self._partial, b""
                event: dict[str, Any] = json.loads(line)
                return event
            if ended or time.monotonic() > deadline:
                return None
            time.sleep(_INTERVAL)

    @property
    def ended(self) -> bool:
        """Return whether the machine is off."""
        return self._process.poll() is not None

    def console(self) -> str:
        """Return the end of what QEMU and the guest's console have shown."""
        text = ""
        for path in (self._directory / "qemu", self._console):
            if path.exists():
                text += path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-_CONSOLE_LINES:])

    def close(self) -> None:
        """Switch the machine off and remove its files."""
        self._process.kill()
        self._process.wait()
        self._results.close()
        shutil.rmtree(self._directory)


def _sweep() -> None:
    """Remove the files of test runs that were killed; their machines ended with them."""
    for directory in Path(_PLACE).glob(f"{_PREFIX}*-*"):
        pid = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(directory, ignore_errors=True)
