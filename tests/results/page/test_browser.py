"""The page in headless Chromium, opened from disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from xacle_stack.results.page import ClipEntry, Plot, Report, Table, write_page

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

N_CLIPS = 120
SYSTEMS = ["Tango", "AudioLDM 2", "<b>bold</b>"]
SCRIPT = "<script>document.title = 'hacked'</script>"
IMAGE = "<img src=x onerror=\"document.title = 'hacked'\">"
OPTIONS = [
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
    "disable-dev-shm-usage",
]
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="600" height="80"><path d="M0 0h9v9z"/></svg>'


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = shutil.which("chromium")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium or its driver is not installed: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in OPTIONS:
        options.add_argument(f"--{option}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a page, 100 % #1")
    sound = folder / "tone #1.wav"
    soundfile.write(sound, 0.2 * np.sin(np.arange(4000) / 4), 8000, subtype="PCM_16")
    rng = np.random.default_rng(0)
    texts = [f"sound number {row}" for row in range(N_CLIPS)]
    texts[5:8] = [SCRIPT, IMAGE, "w" * 300]
    clips = [
        ClipEntry(
            f"id{row}",
            text,
            SYSTEMS[row % 3],
            sound,
            score,
            low=max(0.0, score - row / 50),
            high=min(10.0, score + row / 50),
            novelty=float(rng.gamma(2, 0.4)),
            human=float(rng.uniform(0, 10)) if row % 2 else None,
            columns={"seed": row, "prompt set": "first"},
        )
        for row, (text, score) in enumerate(zip(texts, rng.uniform(0, 10, N_CLIPS), strict=True))
    ]
    report = Report(
        "Title",
        ["A sentence."],
        [Table("Results", ["system", *"abcdefghij"], [["stack", *["1.234 [1.2, 1.3]"] * 10]])],
        [Plot("A plot", SVG)],
        clips,
        confidence=0.9,
    )
    return write_page(report, folder / "report", max_clips=10)


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Any]:
    set_width(browser, 1400)
    browser.get(page.as_uri())
    yield browser
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert messages == []
    assert browser.title == "Title"


def set_width(browser: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def texts(browser: Any, selector: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((found) => found.textContent)"
    return browser.execute_script(script, selector)


def scores(browser: Any) -> list[float]:
    return [float(text) for text in texts(browser, "td.score .value")]


def status(browser: Any) -> str:
    return browser.find_element(By.ID, "status").text


def button(browser: Any, label: str) -> Any:
    return browser.find_element(By.XPATH, f"//button[text()='{label}']")


def test_columns_and_lists_sort(opened: Any) -> None:
    assert scores(opened) == sorted(scores(opened))
    assert len(scores(opened)) == 50
    worst = scores(opened)[0]
    assert button(opened, "Worst").get_attribute("aria-pressed") == "true"

    button(opened, "Score").click()
    assert scores(opened) == sorted(scores(opened), reverse=True)
    assert scores(opened)[0] > worst
    assert button(opened, "Best").get_attribute("aria-pressed") == "true"
    sorted_heads = "th[aria-sort=descending]"
    assert texts(opened, sorted_heads) == ["Score"]

    for label, column in (
        ("Most uncertain", "width"),
        ("Most novel", "novelty"),
        ("Most disputed", "dispute"),
    ):
        button(opened, label).click()
        values = [float(text) for text in texts(opened, f"td.{column}")]
        assert values == sorted(values, reverse=True)
    button(opened, "Human").click()
    assert "–" not in texts(opened, "td.human")
    button(opened, "Id").click()
    assert texts(opened, ".id")[:3] == ["id0", "id1", "id2"]  # numbers as numbers


def test_texts_and_systems_filter(opened: Any) -> None:
    search = opened.find_element(By.ID, "search")
    search.send_keys("NUMBER 11")
    assert sorted(texts(opened, ".id")) == sorted(["id11", *(f"id{n}" for n in range(110, 120))])
    assert status(opened).startswith("Clips 1 to 11 of 11 found among 120")
    search.send_keys("x")
    assert texts(opened, ".id") == []
    assert status(opened).startswith("Clips 0 found among 120")
    search.clear()
    search.send_keys(" ", Keys.BACKSPACE)

    Select(opened.find_element(By.ID, "system")).select_by_visible_text("<b>bold</b>")
    assert set(texts(opened, "td.system")) == {"<b>bold</b>"}
    assert status(opened).startswith("Clips 1 to 40 of 40 found among 120")
    Select(opened.find_element(By.ID, "system")).select_by_visible_text("all")
    assert status(opened).startswith("Clips 1 to 50 of 120")


def test_pages_show_every_clip_once(opened: Any) -> None:
    seen = texts(opened, ".id")
    for _ in range(2):
        button(opened, "Next").click()
        seen += texts(opened, ".id")
    assert sorted(seen) == sorted(f"id{row}" for row in range(N_CLIPS))
    assert not button(opened, "Next").is_enabled()
    assert texts(opened, "#pages span") == ["Page 3 of 3"]
    button(opened, "Worst").click()
    assert texts(opened, "#pages span") == ["Page 1 of 3"]


@pytest.mark.parametrize("part", ["index_files/audio", "tone%20%231.wav"])
def test_copied_and_linked_sounds_load_and_one_plays_at_a_time(opened: Any, part: str) -> None:
    opened.execute_script(
        "for (const player of document.querySelectorAll('audio'))"
        "  if (player.src.includes(arguments[0])) { window.player = player; player.load(); break }",
        part,
    )
    assert opened.execute_script("return window.player.preload") == "none"
    opened.execute_script("window.player.preload = 'auto'; window.player.load()")
    WebDriverWait(opened, 20).until(
        lambda found: found.execute_script("return window.player.readyState >= 1")
    )
    assert opened.execute_script("return window.player.duration") == pytest.approx(0.5, abs=0.05)


def test_pictures_load_when_they_are_seen(opened: Any) -> None:
    picture = opened.find_element(By.CSS_SELECTOR, "td.sound img")
    assert picture.get_attribute("loading") == "lazy"
    opened.execute_script("arguments[0].scrollIntoView()", picture)
    WebDriverWait(opened, 20).until(
        lambda found: found.execute_script("return arguments[0].naturalWidth", picture) == 320
    )
    assert "Spectrogram of" in picture.get_attribute("alt")
    plot = opened.find_element(By.CSS_SELECTOR, "figure img")
    opened.execute_script("arguments[0].scrollIntoView()", plot)
    WebDriverWait(opened, 20).until(
        lambda found: found.execute_script("return arguments[0].naturalWidth", plot) == 600
    )


def test_markup_in_captions_is_text(opened: Any) -> None:
    for row, text in ((5, SCRIPT), (6, IMAGE)):
        search = opened.find_element(By.ID, "search")
        search.clear()
        search.send_keys(text)
        assert texts(opened, ".caption") == [text]
        assert texts(opened, ".id") == [f"id{row}"]
    assert opened.find_elements(By.CSS_SELECTOR, "#rows script, #rows p img") == []


def test_the_keyboard_is_enough(opened: Any) -> None:
    opened.execute_script("document.getElementById('search').focus()")
    active = opened.switch_to.active_element
    active.send_keys("number 7", Keys.TAB)
    assert opened.switch_to.active_element.get_attribute("id") == "system"
    opened.switch_to.active_element.send_keys("T")  # chooses Tango
    assert set(texts(opened, "td.system")) == {"Tango"}
    for _ in range(4):  # the caption's, the id's, the system's and the score's header
        opened.switch_to.active_element.send_keys(Keys.TAB)
    assert opened.switch_to.active_element.text == "Score"
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert texts(opened, "th[aria-sort=descending]") == ["Score"]
    assert opened.switch_to.active_element.text == "Score"  # the focus stays
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert opened.execute_script(outline) == "solid"
    opened.execute_script("document.querySelector('summary').focus()")
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    assert texts(opened, "details[open] dt")[:2] == ["seed", "prompt set"]


@pytest.mark.parametrize("width", [400, 1400])
def test_no_part_of_the_page_is_wider_than_the_window(opened: Any, width: int) -> None:
    set_width(opened, width)
    search = opened.find_element(By.ID, "search")
    for text in ("", "www"):
        search.send_keys(text)
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    # The search is there, and as wide as the window.
    assert search.is_displayed()
    assert search.rect["x"] + search.rect["width"] <= width


def test_ten_thousand_clips_open_at_once(browser: Any, tmp_path: Path) -> None:
    clips = [
        ClipEntry(f"id{row}", f"a sound with number {row}", None, Path("x.wav"), row / 1000)
        for row in range(10_000)
    ]
    page = write_page(Report("Title", clips=clips), tmp_path, audio="link", max_clips=0)
    browser.get(page.as_uri())
    assert len(texts(browser, "td.score")) == 50
    assert status(browser) == "Clips 1 to 50 of 10,000, lowest score first."
    browser.find_element(By.ID, "search").send_keys("9999")
    assert texts(browser, ".id") == ["id9999"]
