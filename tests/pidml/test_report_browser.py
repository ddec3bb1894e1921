"""Reports in a browser: nothing is fetched, nothing fails, everything is shown."""

from __future__ import annotations

from typing import Any

import pytest
from support.chromium import PROGRAM, chromium
from support.report_steps import HOSTILE, write_steps

from pidml.report import write_report
from pidml.spec import parse_job
from pidml.species import TARGET_NAMES

pytestmark = [pytest.mark.browser, pytest.mark.skipif(PROGRAM is None, reason="no Chromium here")]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("report")
    job = parse_job({"dataset": {"files": [f"/data/{HOSTILE}.root"]}}, "test").model_copy(update={"name": HOSTILE})
    write_report(root / "report.html", job, write_steps(root), {"queued by": HOSTILE})
    with chromium() as browser:
        browser.call("Network.enable")
        browser.open((root / "report.html").as_uri())
        yield browser


def requested(page: Any) -> list[str]:
    """Return the addresses that the page asked for."""
    return [e["params"]["request"]["url"] for e in page.events if e.get("method") == "Network.requestWillBeSent"]


def test_nothing_is_fetched_and_nothing_fails(page: Any) -> None:
    addresses = requested(page)
    assert any(address.endswith("report.html") for address in addresses), "requests are not seen at all"
    assert [a for a in addresses if not a.startswith("data:") and not a.endswith("report.html")] == []
    assert page.messages() == []
    kinds = {event.get("method") for event in page.events}
    assert not kinds & {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening"}


def test_every_image_loads(page: Any) -> None:
    images = page.evaluate("[...document.images].map(each => [each.alt, each.complete, each.naturalWidth])")
    assert len(images) > 15
    assert [alt for alt, complete, width in images if not complete or not width] == []


def test_headings_are_there_and_links_lead_to_them(page: Any) -> None:
    headings = page.evaluate("[...document.querySelectorAll('h2')].map(each => each.innerText)")
    assert headings == ["Summary", "Performance", "Explanation", "Data", "Training", "Bundle", "Provenance"]
    assert page.evaluate("document.querySelector('h1').innerText") == HOSTILE
    targets = page.evaluate(
        "[...document.querySelectorAll('nav a')]"
        ".map(each => document.querySelector(each.hash)?.querySelector('h2').innerText)"
    )
    assert targets == headings


@pytest.mark.parametrize("section", ["performance", "explanation"])
def test_a_tab_shows_its_species_alone(page: Any, section: str) -> None:
    titles = page.evaluate(f"[...document.querySelectorAll('#{section} [role=tab]')].map(each => each.innerText)")
    assert len(titles) == 1 + len(TARGET_NAMES)
    for position, title in enumerate(titles):
        shown = page.evaluate(
            f"document.querySelectorAll('#{section} [role=tab]')[{position}].click();"
            f"[...document.querySelectorAll('#{section} .tab')].filter(e => e.offsetHeight).map(e => e.dataset.title)"
        )
        assert shown == [title]


def test_nothing_is_wider_than_the_window(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
