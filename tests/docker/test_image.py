"""What the image is made of: size, layers, contents, and how it is started."""

import json

import pytest

from gateway import __version__
from tests.docker.engine import Engine
from tests.docker.images import BASE, PROJECT
from tests.docker.site import Site

pytestmark = pytest.mark.docker

LARGEST = 90_000_000
"""Bytes that the project's layers may add to the base."""

LISTING = """
cd /
echo '# packages'; dpkg-query -W -f '${Installed-Size} ${Package}\\n'
echo '# python'; ls /opt/portcullis/lib/python3*/site-packages | grep dist-info
echo '# directories'; du -xk --max-depth=1 /usr /usr/lib /opt/portcullis /usr/share
echo '# scripts'; find / -xdev -type f -perm /111 -exec grep -lIE '^#!.*(sh|perl)' {} +
echo '# setuid'; find / -xdev -type f -perm /6000
"""


@pytest.fixture(scope="module")
def listing(site: Site) -> dict[str, list[str]]:
    """Return what is inside the image, by headings."""
    text = inside(site.engine, "sh", "-c", LISTING)
    sections = [part.splitlines() for part in text.split("# ") if part.strip()]
    return {heading: lines for heading, *lines in sections}


def inside(engine: Engine, *argv: str) -> str:
    """Run a command in a container of the image and return its output."""
    program, *arguments = argv
    return engine.docker(
        *("run", "--rm", "--network", "none", "--entrypoint", program, PROJECT, *arguments)
    )


def inspect(engine: Engine, image: str, template: str) -> str:
    """Return what `docker image inspect` says by a template."""
    return engine.docker("image", "inspect", "--format", template, image).strip()


def test_size_layers_and_contents_are_reported(
    site: Site, listing: dict[str, list[str]], report: list[str]
) -> None:
    """The run prints them at its end; the image stays within its limit."""
    sizes = {image: int(inspect(site.engine, image, "{{.Size}}")) for image in (BASE, PROJECT)}
    added = sizes[PROJECT] - sizes[BASE]
    report.append(f"image: {sizes[PROJECT] / 1e6:.0f} MB, {added / 1e6:.0f} MB of it on the base")
    history = site.engine.docker(
        "history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", PROJECT
    )
    report.extend(line[:120] for line in history.splitlines() if not line.startswith("0B"))
    packages = sorted(listing["packages"], key=lambda line: -int(line.split()[0]))
    report.append(f"{len(packages)} Debian packages, the largest (KiB): {', '.join(packages[:15])}")
    report.append(f"Python packages: {', '.join(listing['python'])}")
    report.append(
        "directories (KiB): " + ", ".join(" ".join(d.split()) for d in listing["directories"])
    )
    report.append("scripts: " + ", ".join(listing["scripts"]))
    assert added < LARGEST


@pytest.mark.parametrize(
    "program", ["gcc", "cc", "cpp", "ld", "as", "make", "pip", "pip3", "curl", "wget", "git", "ip"]
)
def test_a_program_that_only_building_needs_is_not_inside(site: Site, program: str) -> None:
    """No compiler, no pip, nothing to fetch things with."""
    found = inside(site.engine, "sh", "-c", f"command -v {program} || echo nothing")
    assert found.strip() == "nothing"


def test_no_cache_no_tests_and_no_sources_of_the_build_are_inside(site: Site) -> None:
    """What building left behind stayed in the first stage."""
    command = (
        "ls -A /root/.cache /build /var/lib/apt/lists /var/cache /var/log 2>/dev/null;"
        " find /opt /root -name tests -o -name '*.lock' -o -name '*.whl' -o -name '*.c'"
    )
    lines = [line for line in inside(site.engine, "sh", "-c", command).splitlines() if line]
    assert [line for line in lines if not line.endswith(":")] == []


def test_the_projects_own_directory_has_no_script_but_its_two_commands(
    site: Site, listing: dict[str, list[str]]
) -> None:
    """No shell script is ours; what remains is Debian's, for installing packages."""
    own = inside(site.engine, "find", "/opt/portcullis/bin", "-type", "f")
    assert sorted(own.split()) == [
        f"/opt/portcullis/bin/{name}" for name in ("gateway", "healthcheck")
    ]
    assert [path for path in listing["scripts"] if path.startswith("/opt")] == []


def test_every_module_is_compiled_and_nothing_is_fetched_at_start(site: Site) -> None:
    """The root file system may be read-only: no module waits for its first compilation."""
    command = (
        "cd /opt/portcullis/lib/python3*/site-packages;"
        " for f in $(find gateway healthcheck -name '*.py'); do"
        '   ls "$(dirname $f)/__pycache__/$(basename $f .py)".cpython-*.pyc >/dev/null || echo $f;'
        " done"
    )
    assert inside(site.engine, "sh", "-c", command).strip() == ""


def test_python_iptables_finds_its_libraries_without_asking_ldconfig(site: Site) -> None:
    """The links that the image has for it are whole, on whatever architecture it was built."""
    broken = inside(site.engine, "find", "/opt/portcullis", "-xtype", "l")
    assert broken.strip() == ""
    code = "import iptc.xtables as x; print(x._xtables_libdir, x.xtables_version)"
    reported = inside(site.engine, "/opt/portcullis/bin/python", "-I", "-c", code)
    assert reported.split() == ["/opt/portcullis/iptables/xtables", "12"]


def test_the_image_says_how_it_is_run(site: Site) -> None:
    """Python is process 1 itself and gets SIGTERM; health is asked by the project's program."""
    config = json.loads(inspect(site.engine, PROJECT, "{{json .Config}}"))
    assert config["Entrypoint"] == ["/opt/portcullis/bin/python", "-I", "-m", "gateway"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][-1] == "/opt/portcullis/healthcheck.pyc"
    assert config["User"] == "root"
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "Portcullis"
    assert labels["org.opencontainers.image.version"] == __version__
    assert not config.get("ExposedPorts")
    assert not config.get("Volumes")


def test_the_program_in_the_image_has_the_version_of_the_label(site: Site) -> None:
    """It is built of the same files."""
    said = site.engine.docker("run", "--rm", "--network", "none", PROJECT, "--version")
    assert said == f"portcullis {__version__}\n"


def test_commands_of_the_gateway_can_be_given_to_docker_run(site: Site) -> None:
    """`docker run portcullis check` reads the configuration and touches nothing."""
    reported = site.engine.docker("run", "--rm", "--network", "none", PROJECT, "check", check=False)
    assert "WIREGUARD_PRIVATE_KEY" in reported
    assert "Traceback" not in reported
