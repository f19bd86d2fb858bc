"""What `podman build` makes of the HEALTHCHECK of the Dockerfile, as docs/podman.md says."""

import json
import re

import pytest

from tests.docker.images import PROJECT, ROOT
from tests.podman.pod import PodSite

pytestmark = pytest.mark.podman

(HEALTHCHECK,) = re.findall(
    r"^HEALTHCHECK .*\n +CMD .*\n", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE
)


@pytest.mark.parametrize(("options", "kept"), [((), False), (("--format", "docker"), True)])
def test_only_the_format_of_docker_keeps_the_health_check(
    site: PodSite, options: tuple[str, ...], *, kept: bool
) -> None:
    """An image that is derived from this one in the other format loses it as well."""
    for text in (HEALTHCHECK, "LABEL derived=yes\n"):
        said = site.engine.docker(
            "build", *options, "-t", "derived", "-", stdin=f"FROM {PROJECT}\n{text}"
        )
        warned = "HEALTHCHECK is not supported for OCI image format" in said
        assert warned is not kept
        config = json.loads(site.engine.docker("image", "inspect", "derived"))[0]
        assert (config.get("HealthCheck", config.get("Healthcheck")) is not None) is kept
