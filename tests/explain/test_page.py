"""The page of an explanation: complete, one file, and usable in a browser by keyboard."""

import html
import re
import shutil

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
TIMEOUT = 60_000  # milliseconds, on a busy machine


def test_the_page_has_every_part_and_no_other_file(by_hand, tmp_path):
    by_hand.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    for part in ("found", "input", "features", "anchors", "objectness", "proposals", "training"):
        assert f'<h2 id="{part}">' in page
    assert "one &amp; two.png inside a MaskRCNN" in page
    assert "dog &amp; &lt;owl&gt;" in page
    assert "<owl>" not in page
    sources = re.findall(r'(?:src|href|srcset)="([^"]*)"', page)
    assert len(sources) > 10
    assert {source[:1] for source in sources if not source.startswith("data:")} == {"#"}
    assert page.count("<img") == len(re.findall(r'<img [^>]*alt="[^"]+"', page))
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_boxes_of_the_table_are_those_of_the_detections(by_hand):
    table = re.search(r'<table id="detections">(.*?)</table>', by_hand.html(), re.DOTALL)[1]
    numbers = [float(x) for x in re.findall(r'<td class="number">([\d.]+)</td>', table)]
    assert numbers == [1, 0.9, 5, 5, 25, 30, 2, 0.7, 30, 8, 58, 36]


def test_without_detections_the_page_says_why(empty, without_proposals):
    page = html.unescape(empty.html())
    assert "the best score is 0.900, cat of proposal 1, and detections score above 0.95" in page
    assert 'id="each"' not in page
    assert "there are no proposals to look at" in without_proposals.html()


def test_a_box_without_an_area_is_a_reason_too(empty):
    object.__setattr__(empty, "score_threshold", 0.5)
    assert "its box has no area inside the image" in empty.why_empty


def test_the_page_of_crops_says_that_there_are_no_maps(of_crops):
    page = of_crops.html()
    assert "no feature map of the whole image" in page
    assert "one SVM a class" in page
    assert "no loss in common" in page
    assert "Anchors" not in page


def test_a_folder_is_not_replaced_by_the_page(by_hand, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder: name a file to write"):
        by_hand.save(tmp_path)


# in a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS.split())
        yield browser
        browser.close()


def opened(browser, explanation, folder, **options):
    """Open the page; `tab.errors` has what the browser complains of, `tab.asked` the addresses."""
    explanation.save(folder / "page.html")
    tab = browser.new_page(**options)
    tab.set_default_timeout(TIMEOUT)
    tab.errors, tab.asked = [], []
    tab.on("console", lambda message: tab.errors.append(message.text))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.goto((folder / "page.html").as_uri())
    return tab


def test_the_page_works_by_keyboard_on_a_phone(browser, by_hand, tmp_path):
    phone = {"viewport": {"width": 360, "height": 740}}
    tab = opened(browser, by_hand, tmp_path, **phone)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360  # nothing is cut off
    viewer = tab.locator("[data-for=nms-detections]")
    words = viewer.locator("output")
    assert words.inner_text() == "4 candidates, none decided yet."
    assert viewer.locator("rect.waiting").count() == 4
    slider = viewer.locator("input[type=range]")
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert words.inner_text() == "Step 1 of 2: cat 0.900 stays, and removes 1 (IoU 0.80)."
    assert viewer.locator("rect.best").count() == viewer.locator("rect.removed").count() == 1
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")  # from Back to Next
    tab.keyboard.press("Enter")
    assert words.inner_text().startswith("Step 2 of 2: dog & <owl> 0.700 stays, and removes none")
    assert viewer.locator("rect.kept").count() == viewer.locator("rect.gone").count() == 1
    assert viewer.locator("button.next").is_disabled()
    assert viewer.locator("button.back").is_enabled()

    parts = tab.locator("section.part")
    assert [parts.nth(i).is_visible() for i in range(2)] == [True, False]
    tab.locator("#chooser select").focus()
    tab.keyboard.press("ArrowDown")
    assert [parts.nth(i).is_visible() for i in range(2)] == [False, True]
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Enter")  # Back
    assert [parts.nth(i).is_visible() for i in range(2)] == [True, False]

    broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).length"
    assert tab.evaluate(broken) == 0
    assert tab.errors == []
    outside = [url for url in tab.asked if not url.startswith(("data:", "file:"))]
    assert outside == []


def test_without_javascript_every_detection_is_there(browser, by_hand, tmp_path):
    tab = opened(browser, by_hand, tmp_path, java_script_enabled=False)
    parts = tab.locator("section.part")
    assert [parts.nth(i).is_visible() for i in range(2)] == [True, True]
    assert not tab.locator(".viewer").first.is_visible()


def test_a_page_without_detections_works(browser, without_proposals, tmp_path):
    tab = opened(browser, without_proposals, tmp_path)
    assert "no proposals" in tab.locator("#why").inner_text()
    assert tab.errors == []
