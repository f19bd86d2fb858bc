"""The files of an image, read without starting it."""

import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.docker.engine import Engine


@dataclass(frozen=True)
class Files:
    """The file system of a container that was never started."""

    archive: bytes
    entries: Mapping[str, tarfile.TarInfo]

    def read(self, path: str) -> bytes:
        """Return what is in a file."""
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as packed:
            found = packed.extractfile(self.entries[path])
            assert found is not None
            return found.read()

    def first_lines(self) -> dict[str, bytes]:
        """Return how each file begins, by path."""
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as packed:
            regular = {path: it for path, it in self.entries.items() if it.isreg()}
            opened = {path: packed.extractfile(it) for path, it in regular.items()}
            return {path: one.read(128) for path, one in opened.items() if one is not None}

    def programs(self) -> set[str]:
        """Return the names in the directories of programs."""
        places = re.compile(r"(usr/(local/)?s?bin|opt/portcullis/bin)/[^/]+")
        return {Path(path).name for path in self.entries if places.fullmatch(path)}


def files_of(engine: Engine, image: str, *options: str) -> Files:
    """Return the files of an image, with what Docker puts into each container.

    `options` are those that name another platform.
    """
    name = f"exported-{image.replace(':', '-')}"
    engine.docker("create", *options, "--name", name, image)
    path = engine.directory / f"{name}.tar"
    try:
        engine.docker("export", "-o", str(path), name)
        archive = path.read_bytes()
    finally:
        path.unlink(missing_ok=True)
        engine.docker("rm", name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        return Files(archive, {entry.name.rstrip("/"): entry for entry in packed})
