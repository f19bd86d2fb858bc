"""One version, of gateway/__init__.py, wherever it is shown."""

import ast
import inspect
import re
import tomllib
from pathlib import Path

import pytest

from gateway import __version__, cli
from gateway.log_text import sentence
from gateway.policy.history import History
from gateway.policy.report import Status
from gateway.policy.states import Reason
from gateway.services.health import metrics

PROJECT = Path(__file__).resolve().parents[2]
DOCKERFILE = (PROJECT / "Dockerfile").read_text("utf-8")
LABEL = "org.opencontainers.image"


def test_it_has_three_numbers_that_a_release_can_be_tagged_with() -> None:
    """X.Y.Z, as CHANGELOG.md and docs/compatibility.md have it."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """`gateway --version`, which changes nothing."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"portcullis {__version__}\n"


def test_the_first_line_of_the_log_has_it() -> None:
    """The first event of `run`; tests/promises/test_never_waits.py reads it in the lab."""
    calls = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(cli.run)))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger.")
    ]
    first = min(calls, key=lambda call: call.lineno)
    assert ast.literal_eval(first.args[0]) == "starting"
    assert {key.arg: ast.unparse(key.value) for key in first.keywords}["version"] == "__version__"
    line = sentence("starting", {"version": __version__, "commit": "abc"})
    assert line == f"portcullis {__version__} (abc)"


def test_the_metrics_have_it() -> None:
    """As `portcullis_build_info`."""
    status = Status(0.0, "locked", healthy=False, reason=Reason.STARTING, since=0.0)
    text = metrics.exposition(status, History(), 0.0, healthy=False).decode()
    assert f'portcullis_build_info{{version="{__version__}"}} 1.0' in text


def test_the_labels_of_the_image_have_it_and_the_commit() -> None:
    """Of the stage that is the image; tests/docker/test_image.py reads them of a built one."""
    assert DOCKERFILE.rstrip().endswith("\nFROM gateway")
    last = DOCKERFILE[DOCKERFILE.index("\nFROM scratch AS gateway\n") :]
    assert re.findall(r"^ARG VERSION=(.*)$", last, re.MULTILINE) == [__version__]
    assert re.findall(r"^ARG COMMIT=(.*)$", last, re.MULTILINE) == ['""']
    assert f"{LABEL}.version=$VERSION" in last
    assert f"{LABEL}.revision=$COMMIT" in last
    assert last.index("ARG VERSION") < last.index("$VERSION")
    assert last.index("ARG COMMIT") < last.index("$COMMIT")


def test_the_package_takes_it_from_the_code() -> None:
    """Only one place has the number."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == f"{cli.__name__.partition('.')[0]}.__version__"
