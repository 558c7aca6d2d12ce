"""A real Chromium for the tests of the operator's page: fetched once, pinned, driven over CDP."""

from nexus_devtools.browser.chromium import BrowserError, Chromium, ready_chromium
from nexus_devtools.browser.drive import Tab, browsing

__all__ = ["BrowserError", "Chromium", "Tab", "browsing", "ready_chromium"]
