"""What all tests share: the lab's fixtures, and the rule that CI may not skip.

A test marked `lab` needs root and the programs below. Where they are missing it is skipped with
the reason, but under CI=true it fails: a skip there would be a promise that was not checked.
"""

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests import firewalls, repeating
from tests.lab.tls import Authority, authority
from tests.lab.topology import Lab, sweep

_FIREWALL = pytest.StashKey[pytest.FixtureDef[Any]]()

LAB_PROGRAMS = ("ip", "nft", "wg", "wireguard-go", "nsenter", "unshare", "setpriv", "mount")


EXAMPLES = {"quick": 25, "full": 150}
"""How many examples a property gets."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which scripts/test runs the tests that need no root."""
    parser.addoption(
        "--full",
        action="store_true",
        help="150 instead of 25 examples for each property, and the tests marked `long`",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples a property gets, before the tests are imported."""
    with suppress(ImportError):  # the guest of tests/kernel tests no properties
        from hypothesis import settings  # noqa: PLC0415

        for name, number in EXAMPLES.items():
            settings.register_profile(name, max_examples=number, deadline=None)
        settings.load_profile("full" if config.getoption("--full") else "quick")


def lab_obstacle() -> str | None:
    """Return why this machine cannot run the lab, or None."""
    if os.geteuid() != 0:
        return "the lab needs root"
    missing = [program for program in LAB_PROGRAMS if shutil.which(program) is None]
    return f"the lab needs {', '.join(missing)}" if missing else None


def skip_or_fail(reason: str) -> None:
    """Skip on a laptop, fail in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (a skip in CI is a failure)", pytrace=False)
    pytest.skip(reason)


def is_quick(config: pytest.Config) -> bool:
    """Return whether this is a plain `pytest` of tests/unit, without --full."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return not config.getoption("--full") and (whole or config.args == ["tests/unit"])


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run plain `pytest`, without files or a number of processes, in two processes."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # it gets the same arguments, and has no workers
        return
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if whole and getattr(config.option, "numprocesses", 0) is None and not config.option.usepdb:
        config.option.numprocesses = 2
        config.option.dist = "worksteal"


def pytest_report_header() -> str:
    """Say how the firewalls of the lab's tests were chosen, so that it can be repeated."""
    given = os.environ.get(firewalls.VARIABLE)
    chosen = f"LAB_FIREWALL={given}" if given else f"drawn, LAB_COMMIT={firewalls.commit()}"
    return f"firewall of each test in the lab: {chosen}"


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make each test of a gateway in the lab for every firewall; see tests/firewalls.py."""
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    if "lab" in marks and "no_gateway" not in marks and not firewalls.forced():
        metafunc.parametrize(firewalls.FIXTURE, firewalls.FIREWALLS, indirect=True, scope="module")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave each test on the firewalls that it is to run on this time.

    Plain `pytest` also leaves out what is marked `long`; a file or an id on the command line does
    not.
    """
    items[:] = [item for item in items if firewalls.is_wanted(item)]
    if is_quick(config):
        long = [item for item in items if item.get_closest_marker("long") is not None]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    """End what a module shares when its firewall changes: a gateway of one is none of the other."""
    stash = request.session.stash
    if fixturedef.argname == firewalls.FIXTURE:
        stash[_FIREWALL] = fixturedef
    elif fixturedef.scope in {"module", "package"} and _FIREWALL in stash:
        stash[_FIREWALL].addfinalizer(partial(fixturedef.finish, request=request))


@pytest.fixture(scope="module", autouse=True)
def lab_firewall(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the lab's gateways run on the firewall in the test's id."""
    wanted = getattr(request, "param", None)
    if wanted is None:
        yield
        return
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(firewalls.VARIABLE, wanted)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Stop a test that this machine cannot run before its fixtures are built."""
    if item.get_closest_marker("lab") is not None and (reason := lab_obstacle()):
        skip_or_fail(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note in the report of a failure whether the test may be run again."""
    report = yield
    repeating.noted(item, call, report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the failed tests that scripts/testing.py may run again."""
    stats = terminalreporter.stats
    for line in repeating.listed([*stats.get("failed", ()), *stats.get("error", ())]):
        terminalreporter.write_line(line)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remove what a killed run left behind, once, before the first lab."""
    if any(item.get_closest_marker("lab") for item in session.items) and lab_obstacle() is None:
        sweep()


@pytest.fixture
def make_lab() -> Iterator[Callable[..., Lab]]:
    """Return a function that builds a lab with the options of `Lab`; it ends with the test."""
    with ExitStack() as stack:

        def build(**options: Any) -> Lab:
            return stack.enter_context(Lab(**options))

        yield build


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Return a lab with one uplink and one server, up and running."""
    return make_lab()


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority for the gateways of a file to trust."""
    return authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def replaced_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[ModuleType, str], None]:
    """Return what has a service run other code instead of its process, given as text."""
    monkeypatch.syspath_prepend(tmp_path)

    def replace(service: ModuleType, code: str) -> None:
        (tmp_path / "replaced_process.py").write_text(code)
        monkeypatch.setattr(service, "_MODULE", "replaced_process")

    return replace
