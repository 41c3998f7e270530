"""Headless Chromium for the tests of the report page. Skips the test if Chromium is not installed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-component-update",
    "--disable-background-networking", "--no-first-run", "--disable-sync", "--disable-search-engine-choice-screen",
)  # fmt: skip


class Browser:
    """A browser with one page; records the page's network requests."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Opens a page and waits until its data is drawn."""
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # discards entries of earlier pages
        self._command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._command("Emulation.setEmulatedMedia", features=[scheme, still])
        self.driver.get(address)
        self.wait(lambda: self.script("return document.documentElement.dataset.ready === 'true'"), "the page is ready")

    def _command(self, name: str, **parameters: Any) -> None:
        self.driver.execute_cdp_cmd(name, parameters)

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The text of the first element that matches, visible or not; empty if there is none.

        In one call, because the page may be drawn again at any time.
        """
        return str(self.script("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def choose(self, selector: str, option: str) -> None:
        """Selects an option by its text."""
        self.script(
            "const [box, text] = [document.querySelector(arguments[0]), arguments[1]];"
            "box.value = [...box.options].find((each) => each.textContent === text).value;"
            "box.dispatchEvent(new Event('change'))",
            selector,
            option,
        )

    def keys(self, *keys: str) -> None:
        """Types into the element that has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def point(self, selector: str, x: float, y: float, *, click: bool = False) -> None:
        """Moves the mouse to a position in an element, in pixels from its upper left corner."""
        element = self.find(selector)
        size = element.size
        chain = ActionChains(self.driver).move_to_element_with_offset(
            element, round(x - size["width"] / 2), round(y - size["height"] / 2)
        )
        (chain.click() if click else chain).perform()

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"in vain: {what}; the console: {self.console()}"
            time.sleep(0.02)

    def console(self) -> list[str]:
        """The console's messages since the page was opened."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that the page has requested, or tried to, since it was opened."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a new profile."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium is missing (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(started)
    finally:
        started.quit()
