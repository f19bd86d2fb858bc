"""What can be measured of the page as it is shown: contrast, width, what axe-core finds."""

import json
from pathlib import Path
from typing import Any

from tests.browser import Browser
from tests.conftest import skip_or_fail

AXE = Path(__file__).resolve().parents[2] / ".cache" / "axe" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

CONTRAST = """(() => {
  const rgba = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return { r, g, b, a };
  };
  const over = (top, under) => ({
    r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a),
    b: top.b * top.a + under.b * (1 - top.a), a: 1 });
  const ground = (element) => {
    if (!element) return { r: 255, g: 255, b: 255, a: 1 };
    const own = rgba(getComputedStyle(element).backgroundColor);
    return own.a === 1 ? own : over(own, ground(element.parentElement));
  };
  const part = (value) => value <= 0.04045 * 255 ? value / 255 / 12.92
    : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const light = ({ r, g, b }) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const found = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement, style = getComputedStyle(element);
    if (!walk.currentNode.data.trim() || ["SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
    if (!element.checkVisibility() || element.closest(".unseen")) continue;
    const under = ground(element), colour = over(rgba(style.color), under);
    const [high, low] = [light(colour), light(under)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
    const enough = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
    found.push([(high + 0.05) / (low + 0.05), enough, walk.currentNode.data.trim()]);
  }
  return found;
})()"""
"""The contrast of each text that is shown, and the least that WCAG 2.2, 1.4.3, wants (AA)."""


def contrasts(browser: Browser) -> list[tuple[float, float, str]]:
    """Return the contrast of each text, the least allowed, and the text."""
    return [tuple(it) for it in browser.run(CONTRAST)]


def too_faint(browser: Browser) -> list[tuple[float, float, str]]:
    """Return the texts that have too little contrast."""
    return [it for it in contrasts(browser) if it[0] < it[1]]


def is_too_wide(browser: Browser) -> bool:
    """Return whether the page has to be scrolled sideways."""
    return bool(browser.run("document.documentElement.scrollWidth > window.innerWidth"))


def violations(browser: Browser) -> list[str]:
    """Return what axe-core finds wrong, with the elements."""
    if not AXE.exists():
        skip_or_fail("axe-core is missing: scripts/install-axe fetches it")
    if not browser.run("'axe' in window"):
        browser.run(AXE.read_text("utf-8") + "; true")
    found: list[dict[str, Any]] = browser.run(
        f"axe.run(document, {{runOnly: {json.dumps(RULES)}}}).then((it) => it.violations)"
    )
    return [f"{it['id']}: {node['html']}" for it in found for node in it["nodes"]]
