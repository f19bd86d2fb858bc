"""What the image is made of: size, layers, contents, and how it is started."""

import json
import re
import stat
import zlib
from email import message_from_string
from pathlib import Path

import pytest
from spdx_tools.spdx.model import Document, RelationshipType
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from gateway import __version__
from tests.docker.contents import Files, files_of
from tests.docker.engine import Engine, call
from tests.docker.images import DEBUG, PROJECT
from tests.docker.site import Site

pytestmark = pytest.mark.docker

LARGEST, LARGEST_PACKED = 86_000_000, 31_000_000
"""Bytes of the image, and of what gzip makes of it at its default, as registries keep it."""
OWN = "opt/portcullis"
PACKAGES = f"{OWN}/lib/python3.13/site-packages"
STATUS = "var/lib/dpkg/status.d"
BILL = f"{OWN}/sbom.spdx.json"
SHELLS = ("sh", "bash", "dash", "ash", "busybox", "perl")
FETCHERS = ("curl", "wget", "git", "nc")
BUILDERS = ("gcc", "cc", "cpp", "ld", "as", "make", "pip", "pip3", "ldconfig")
MANAGERS = ("apt", "apt-get", "dpkg", "debconf", "update-alternatives")


@pytest.fixture(scope="module")
def files(site: Site) -> Files:
    """Return what is inside the image."""
    return files_of(site.engine, PROJECT)


@pytest.fixture(scope="module")
def debugging(site: Site) -> Files:
    """Return what is inside the target `debug`."""
    return files_of(site.engine, DEBUG)


def inside(engine: Engine, *argv: str, image: str = PROJECT, check: bool = True) -> str:
    """Run a command in a container of an image and return its output."""
    program, *arguments = argv
    return engine.docker(
        *("run", "--rm", "--network", "none", "--entrypoint", program, image, *arguments),
        check=check,
    )


def inspect(engine: Engine, image: str, template: str) -> str:
    """Return what `docker image inspect` says by a template."""
    return engine.docker("image", "inspect", "--format", template, image).strip()


def test_size_layers_and_contents_are_reported(site: Site, files: Files, report: list[str]) -> None:
    """The run prints them at its end; the image stays within its limits."""
    size = int(inspect(site.engine, PROJECT, "{{.Size}}"))
    packed = len(zlib.compress(files.archive, 6))
    report.append(f"image: {size / 1e6:.0f} MB, compressed {packed / 1e6:.0f} MB")
    history = site.engine.docker(
        "history", "--no-trunc", "--format", "{{.Size}}\t{{.CreatedBy}}", PROJECT
    )
    report.extend(line[:120] for line in history.splitlines() if not line.startswith("0B"))
    sizes: dict[str, int] = {}
    for path, entry in files.entries.items():
        for parent in Path(path).parents:
            sizes[str(parent)] = sizes.get(str(parent), 0) + entry.size
    largest = sorted(sizes.items(), key=lambda one: -one[1])[:25]
    report.append(
        "directories (KiB): " + ", ".join(f"{size >> 10} {path}" for path, size in largest)
    )
    assert size < LARGEST
    assert packed < LARGEST_PACKED


def test_only_one_program_could_be_misused_as_a_shell(files: Files) -> None:
    """It is `sh`, for the commands that people bring along, without a tool that it could call.

    Control: the gateway's own programs are found by the same names.
    """
    programs = files.programs()
    assert {"nft", "setpriv", "unbound", "wireguard-go", "ping", "gateway"} <= programs
    assert programs & {*SHELLS} == {"sh", "dash"}
    assert not programs & {*FETCHERS, *BUILDERS, *MANAGERS, "ip", "cat", "ls", "rm", "chmod"}
    assert not any("/perl" in path or path.startswith("etc/apt") for path in files.entries)


def test_the_target_for_debugging_has_a_shell_with_tools(site: Site, debugging: Files) -> None:
    """It is the same image with busybox, and no program of the image is replaced."""
    layers = [json.loads(inspect(site.engine, it, "{{json .RootFS}}")) for it in (PROJECT, DEBUG)]
    assert layers[1]["Layers"][:-1] == layers[0]["Layers"]
    assert {"busybox", "ls", "wget", "vi", "wg", "ip"} <= debugging.programs()
    said = inside(site.engine, "sh", "-c", "ls / | grep opt; readlink -f /bin/ping", image=DEBUG)
    assert said.split() == ["opt", "/usr/bin/ping"]
    config = [inspect(site.engine, it, "{{json .Config.Entrypoint}}") for it in (PROJECT, DEBUG)]
    assert config[0] == config[1]


def test_no_cache_no_tests_and_no_sources_of_the_build_are_inside(files: Files) -> None:
    """What building left behind stayed in the other stages."""
    traces = re.compile(
        r"root/.|build|image|project|debug|scripts|tmp/.|var/(cache|log|tmp)/."
        r"|.*/(tests|gconv|direct_url\.json)|.*\.(lock|whl|c|h|a)|.*(dpkg-(old|new|dist)|\.orig)"
    )
    assert [path for path in files.entries if traces.fullmatch(path)] == []


def test_nothing_inside_is_a_script_but_the_two_commands(files: Files) -> None:
    """No shell script at all; of Python, what is started by name is ours."""
    begin = files.first_lines()
    assert [path for path, line in begin.items() if re.match(rb"#!.*(sh|perl)\b", line)] == []
    commands = [path for path, line in begin.items() if "bin/" in path and line.startswith(b"#!")]
    assert sorted(commands) == [f"{OWN}/bin/{name}" for name in ("gateway", "healthcheck")]


def test_no_program_inside_has_the_rights_of_another_user(files: Files) -> None:
    """No set-user-ID bit, no file that everybody may write, no owner but root.

    Only the directory of the resolver belongs to its user.
    """
    entries = [it for it in files.entries.values() if not it.issym()]
    assert [it.name for it in entries if it.mode & (stat.S_ISUID | stat.S_ISGID)] == []
    loose = {it.name for it in entries if it.mode & stat.S_IWOTH and not it.mode & stat.S_ISVTX}
    assert loose == set()
    assert {it.name for it in entries if it.uid or it.gid} <= {"var/lib/unbound"}


def test_every_module_is_compiled_and_nothing_is_fetched_at_start(files: Files) -> None:
    """The root file system may be read-only: no module waits for its first compilation."""
    places = re.compile(rf"({PACKAGES}|usr/lib/python3\.13)/.*\.py")
    sources = [Path(path) for path in files.entries if places.fullmatch(path)]
    assert len(sources) > 500
    missing = [
        str(it)
        for it in sources
        if f"{it.parent}/__pycache__/{it.stem}.cpython-313.pyc" not in files.entries
    ]
    assert missing == []


def test_no_link_leads_to_nothing(files: Files) -> None:
    """Also those that python-iptables finds its libraries by, without asking ldconfig."""
    given = {"etc/mtab"}  # Docker's
    broken = []
    for path, entry in files.entries.items():
        seen, name = 0, path
        while seen < 9 and (found := files.entries.get(name)) is not None and found.issym():
            start = "/" if found.linkname.startswith("/") else f"/{Path(name).parent}"
            name = normal(files, start, found.linkname)
            seen += 1
        if entry.issym() and name not in files.entries and name != "" and path not in given:
            broken.append(f"{path} -> {entry.linkname}")
    assert broken == []


def normal(files: Files, start: str, link: str) -> str:
    """Return the path that a link in `start` names, with links to directories followed."""
    place: list[str] = []
    for part in [*Path(start).parts[1:], *Path(link.lstrip("/") if start == "/" else link).parts]:
        if part == "..":
            place.pop()
            continue
        place.append(part)
        here = files.entries.get("/".join(place))
        if here is not None and here.issym() and here.linkname.startswith("usr/"):
            place = here.linkname.split("/")
    return "/".join(place)


def test_unbound_brings_no_second_interpreter(site: Site, files: Files) -> None:
    """It starts with a small library in its place; Python itself needs none."""
    (path,) = (it for it in files.entries if re.search(r"/libpython[^/]*\.so[^/]*$", it))
    assert files.entries[path].size < 100_000
    assert inside(site.engine, "/usr/sbin/unbound", "-V").startswith("Version 1.")


def test_yaml_is_read_without_a_library(site: Site) -> None:
    """The half of PyYAML in Python is whole without the other one."""
    code = "import yaml; print(yaml.__with_libyaml__, yaml.safe_load('[1, {a: b}]'))"
    said = inside(site.engine, "/opt/portcullis/bin/python", "-I", "-W", "error", "-c", code)
    assert said == "False [1, {'a': 'b'}]\n"


def test_python_iptables_finds_its_libraries_without_asking_ldconfig(site: Site) -> None:
    """The links that the image has for it are used, on whatever architecture it was built."""
    code = "import iptc.xtables as x; print(x._xtables_libdir, x.xtables_version)"
    reported = inside(site.engine, "/opt/portcullis/bin/python", "-I", "-c", code)
    assert reported.split() == ["/opt/portcullis/iptables/xtables", "12"]


def test_every_module_of_the_gateway_can_be_imported(site: Site) -> None:
    """Nothing that it imports was left out with what no program uses."""
    code = (
        "import gateway, pkgutil, importlib, ssl;"
        "names = [m.name for m in pkgutil.walk_packages(gateway.__path__, 'gateway.')];"
        "[importlib.import_module(n) for n in names if not n.endswith('__main__')];"
        "print(len(names) > 200, len(ssl.create_default_context().get_ca_certs()) > 100)"
    )
    said = inside(site.engine, "/opt/portcullis/bin/python", "-I", "-W", "error", "-c", code)
    assert said.split() == ["True", "True"]


def test_the_image_says_how_it_is_run(site: Site) -> None:
    """Python is process 1 itself and gets SIGTERM; health is asked by the project's program."""
    config = json.loads(inspect(site.engine, PROJECT, "{{json .Config}}"))
    assert config["Entrypoint"] == ["/opt/portcullis/bin/python", "-I", "-m", "gateway"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD"
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


def bill_of(files: Files, folder: Path) -> Document:
    """Return the list of contents that an image has, as a reader of SPDX understands it."""
    path = folder / "sbom.spdx.json"
    path.write_bytes(files.read(BILL))
    return parse_file(str(path))


@pytest.mark.parametrize("which", ["files", "debugging"])
def test_the_list_of_contents_is_valid_and_complete(
    request: pytest.FixtureRequest, which: str, tmp_path: Path
) -> None:
    """Each package of Debian and of Python is in it, as the image itself has them."""
    files = request.getfixturevalue(which)
    document = bill_of(files, tmp_path)
    assert validate_full_spdx_document(document) == []
    listed = {
        reference.locator.partition("?")[0]
        for one in document.packages
        for reference in one.external_references
    }
    found = {
        purl_of(path, files.read(path).decode()) for path in files.entries if is_metadata(path)
    }
    assert len(found) > 60
    assert found <= listed
    kinds = [it.relationship_type for it in document.relationships]
    assert RelationshipType.STATIC_LINK in kinds


def purl_of(path: str, text: str) -> str:
    """Return what identifies a package, from the fields that dpkg or pip keep of it."""
    fields = message_from_string(text)
    version = fields["Version"].replace("+", "%2B").replace(":", "%3A")
    if not path.startswith(OWN):
        return f"pkg:deb/debian/{fields['Package'].replace('+', '%2B')}@{version}"
    name = fields["Name"].lower().replace("_", "-").replace(".", "-")
    return f"pkg:{'generic' if name == PROJECT else 'pypi'}/{name}@{version}"


def is_metadata(path: str) -> bool:
    """Return whether a file describes a package."""
    return path.startswith(f"{STATUS}/") or bool(
        re.fullmatch(rf"{PACKAGES}/[^/]+\.dist-info/METADATA", path)
    )


def test_a_scanner_finds_the_packages_and_their_release(files: Files) -> None:
    """Where images without a package manager have them: one stanza in a file for each package."""
    packages = [path for path in files.entries if path.startswith(f"{STATUS}/")]
    assert len(packages) > 40
    stanza = files.read(f"{STATUS}/libc6").decode()
    assert re.search(r"^Package: libc6$", stanza, re.MULTILINE)
    assert re.search(r"^Source: glibc$", stanza, re.MULTILINE)
    assert b'VERSION_ID="13"' in files.read("usr/lib/os-release")


def test_the_list_of_contents_comes_out_as_a_file(site: Site, tmp_path: Path) -> None:
    """As a release takes it, with no program of the image."""
    engine = site.engine
    engine.docker("create", "--name", "listed", PROJECT)
    try:
        call(
            ["docker", "cp", f"listed:/{BILL}", str(tmp_path / "sbom.json")], env=engine.environment
        )
    finally:
        engine.docker("rm", "listed")
    document = json.loads((tmp_path / "sbom.json").read_text("utf-8"))
    assert document["spdxVersion"] == "SPDX-2.3"
    assert document["name"] == f"portcullis-{__version__}"
