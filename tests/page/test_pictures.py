"""The pictures of the documentation: each run takes them, `PICTURES=write` keeps them.

They show the gateway's own server with an hour that the test made up (served.py).
"""

import os
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.page.served import Gateway
from tests.page.test_status_page import tone_is

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
LARGEST = 150_000
NAMES = {"status-page-light.png": False, "status-page-dark.png": True}


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_small_and_shows_the_whole_page(name: str, tmp_path: Path) -> None:
    """And the one in the documentation is there, and as large; its pixels depend on the machine."""
    gateway = Gateway()
    gateway.live_an_hour()
    gateway.serve_more()
    taken = IMAGES if os.environ.get("PICTURES") == "write" else tmp_path
    with Browser() as browser:
        browser.show(dark=NAMES[name])
        browser.open(gateway.url)
        tone_is(browser, "ok")
        browser.picture(taken / name)
    new, kept = ((place / name).read_bytes() for place in (taken, IMAGES))
    for picture in (new, kept):
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < LARGEST
    width, height = (int.from_bytes(new[at : at + 4]) for at in (16, 20))
    assert width == int.from_bytes(kept[16:20]) == 1200
    assert 1500 < height < 2500
