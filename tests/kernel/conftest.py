"""The hooks that run in the guest what guest.toml lists; see items.py.

The guest's pytest meets this file too and has no use for it: no list is among its tests.
"""

from pathlib import Path

import pytest

from tests.kernel.items import GuestItem, GuestList, end

LIST = Path(__file__).parent / "guest.toml"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect guest.toml, or another list that was asked for by name."""
    if file_path == LIST or (file_path.suffix == ".toml" and parent.session.isinitpath(file_path)):
        collector: GuestList = GuestList.from_parent(parent, path=file_path)
        return collector
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Report what the guest reports, in place of running the item here."""
    if not isinstance(item, GuestItem):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in item.reports():
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no guest behind, also when the test run was interrupted."""
    end(session)
