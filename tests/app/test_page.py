"""What the page does, as functions; and the page itself in a browser without a network."""

import contextlib
import html
import json
import re
import shutil
import socket

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_length

from rcnn_keras.app import page, return_candidates
from rcnn_keras.app.page import coco_file, picture, serve, try_on
from rcnn_keras.data.detections import Detections
from rcnn_keras.models import FasterRCNN, MaskRCNN

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
TIMEOUT = 120_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def models(make_detector):
    """A detector of boxes and one of masks."""
    boxes = make_detector(FasterRCNN, backbone="zf", anchor_sizes=[[8, 16, 32]])
    sizes = [[8], [16], [32], [64], [128]]
    masks = make_detector(
        MaskRCNN, backbone="resnet18_fpn", backbone_width=0.125, anchor_sizes=sizes
    )
    return {"boxes": return_candidates(boxes), "masks": return_candidates(masks)}


@pytest.fixture(scope="module")
def broken(tmp_path_factory, scene):
    """A folder of files that are no pictures."""
    folder = tmp_path_factory.mktemp("broken")
    with open(scene, "rb") as file:
        (folder / "cut.png").write_bytes(file.read()[:3000])
    (folder / "words.jpg").write_text("not a picture")
    (folder / "empty.png").touch()
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.png", "cut.png: cannot be decoded: image file is truncated"),
        ("words.jpg", "words.jpg: is not an image that Pillow can read"),
        ("empty.png", "empty.png: the file is empty (0 bytes)"),
    ],
)
def test_a_broken_file_is_reported_without_its_folder(models, broken, name, words):
    message = try_on(str(broken / name), "boxes", models)
    assert message.startswith(words)
    assert str(broken) not in message
    assert coco_file(message, 0.5, 0.5) == ("[]", "detections.json")


def test_no_model_runs_without_picture_or_model(models, scene):
    assert try_on("", "boxes", models) == ""
    assert try_on(scene, "", models) == ""


def saved(folder, kind):
    """Save a picture of a kind, 30 pixels high and 50 wide when upright; return its path."""
    values = np.random.default_rng(0).integers(0, 256, (30, 50, 4), np.uint8)
    exif = Image.Exif()
    options = {}
    match kind:
        case "gray.png":
            image = Image.fromarray(values[..., 0])
        case "16 bits.png":
            image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
        case "animated.gif":
            frames = [Image.fromarray(values[..., i]) for i in (0, 1)]
            image, options = frames[0], {"save_all": True, "append_images": frames[1:]}
        case "turned.jpg":
            exif[0x0112] = 6  # to be turned by a quarter
            image = Image.fromarray(values[..., :3].transpose(1, 0, 2).copy())
            options = {"exif": exif}
        case _:
            image = Image.fromarray(values)
    image.save(folder / kind, **options)
    return str(folder / kind)


@pytest.mark.parametrize(
    "kind", ["gray.png", "16 bits.png", "animated.gif", "turned.jpg", "transparent.png"]
)
def test_pictures_of_every_kind_are_read(models, tmp_path, kind):
    trial = try_on(saved(tmp_path, kind), "boxes", models)
    assert trial.file == kind
    assert trial.image.shape == (30, 50, 3)
    assert trial.candidates.image_size == (30, 50)
    assert len(trial.candidates) > 0
    drawn = picture(trial.image, trial.shown(0.5, 0.5))
    assert drawn.size == (1000, 600)


@pytest.mark.parametrize(
    ("size", "on_page"),
    [((1, 1), (1024, 1024)), ((600, 700), (700, 600)), ((40, 4096), (1024, 10)), ((4096, 1), None)],
)
def test_pictures_are_drawn_at_a_size_that_fits_the_page(size, on_page):
    height, width = size
    image = np.full((*size, 3), 255, np.uint8)
    box = [[width / 2, 0, width, height]]
    found = Detections(np.array(box, "f4"), np.ones(1, "f4"), np.zeros(1, int), ["cat"], size)
    drawn = picture(image, found)
    assert drawn.size == (on_page or (1, 1024))
    if drawn.width > 100:  # the box is in the right half, also after shrinking
        coloured = (np.asarray(drawn) != 255).any(axis=2)
        assert coloured[-1, drawn.width * 3 // 4]
        assert not coloured[-1, drawn.width // 4]


@pytest.mark.slow
def test_the_coco_file_has_the_shown_detections(models, scene):
    trial = try_on(scene, "masks", models)
    expected = trial.shown(0.6, 0.3)
    text, name = coco_file(trial, 0.6, 0.3)
    rows = json.loads(text)
    assert name == "shapes_000000_detections.json"
    assert 0 < len(rows) == len(expected) < len(trial.candidates)
    assert min(row["score"] for row in rows) >= 0.6
    assert {row["file"] for row in rows} == {"shapes_000000.png"}
    classes = models["masks"].classes
    assert all(classes[row["category_id"] - 1] == row["class"] for row in rows)
    x, y, width, height = np.array([row["bbox"] for row in rows]).T
    corners = np.stack([x, y, x + width, y + height], axis=1)
    np.testing.assert_allclose(corners, expected.boxes, atol=1e-4)
    masks = [run_length.decode(row["segmentation"]) for row in rows]
    np.testing.assert_array_equal(masks, expected.bool_masks())


def test_without_gradio_the_error_says_how_to_install_it(monkeypatch, models):
    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'rcnn-keras\[app\]'"):
        page.build_page(models)


@pytest.fixture
def eager(models, monkeypatch):
    """The models, with nothing to trace before they are explained."""
    for model in models.values():
        monkeypatch.setattr(model, "run_eagerly", True)
    return models


def test_a_model_is_explained_with_the_thresholds_that_it_was_built_with(eager, scene):
    frame = page.explanation_on(scene, "boxes", eager)
    inside = html.unescape(
        re.fullmatch(r'<iframe title="[^"]*" srcdoc="([^"]*)"></iframe>', frame)[1]
    )
    assert "shapes_000000.png inside a FasterRCNN" in inside
    assert "with an IoU above 0.5; then" in inside
    assert "until 25 are kept" in inside
    assert eager["boxes"].detection_layer.nms_thresh == 1.0


def test_without_a_picture_there_is_nothing_to_explain(eager, broken):
    assert page.explanation_on("", "boxes", eager) == "<p>Choose a picture first.</p>"
    message = page.explanation_on(str(broken / "empty.png"), "boxes", eager)
    assert message == "<p>empty.png: the file is empty (0 bytes)</p>"
    assert eager["boxes"].detection_layer.nms_thresh == 1.0


# in a browser


@pytest.fixture(scope="module")
def hosts():
    """The hosts that this process looks for while the page is made and used."""
    asked = set()
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def noted_look_up(host, *arguments, **options):
        asked.add(host)
        return look_up(host, *arguments, **options)

    def noted_connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            asked.add(address[0])
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", noted_look_up)
        patch.setattr(socket.socket, "connect", noted_connect)
        yield asked


@pytest.fixture(scope="module")
def tab(models, hosts):
    """The page in a browser; `tab.asked` has every address that it asked for."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    with contextlib.ExitStack() as stack:
        blocks, url = serve(models, wait=False)
        stack.callback(blocks.close, verbose=False)
        driver = stack.enter_context(playwright.sync_playwright())
        browser = driver.chromium.launch(executable_path=BROWSER, args=FLAGS.split())
        stack.callback(browser.close)
        tab = browser.new_page()
        tab.set_default_timeout(TIMEOUT)
        tab.asked, tab.address = [], url
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.goto(url)
        yield tab


def drop(tab, path):
    tab.set_input_files("#file input[type=file]", path)


def words(tab, pane, text):
    """Wait until a pane says a text, or what matches."""
    from playwright.sync_api import expect

    place = tab.locator(f"#found_{pane}").get_by_role("textbox")
    expect(place).to_have_value(text, timeout=TIMEOUT)


def move(tab, slider, value):
    tab.fill(f"#{slider} input[type=number]", str(value))
    tab.keyboard.press("Tab")


def picture_in(tab, pane):
    """Wait for a pane's picture; return its address and width."""
    place = tab.locator(f"#picture_{pane} img")
    place.wait_for()
    shown = "image => new Promise(done => image.complete ? done() : image.onload = done)"
    place.evaluate(shown)
    return place.get_attribute("src"), place.evaluate("image => image.naturalWidth")


def test_the_page_works_in_a_browser_without_a_network(tab, models, scene, broken, hosts):
    both = {name: try_on(scene, name, models) for name in models}
    drop(tab, scene)
    first = both["boxes"].shown(0.5, 0.5)
    words(tab, "a", first.summary())
    source, width = picture_in(tab, "a")
    assert width == 1024

    move(tab, "score", 0.9)
    fewer = both["boxes"].shown(0.9, 0.5)
    assert 0 < len(fewer) < len(first)
    words(tab, "a", fewer.summary())
    move(tab, "nms", 1)
    more = both["boxes"].shown(0.9, 1)
    assert len(more) > len(fewer)
    words(tab, "a", more.summary())
    assert picture_in(tab, "a")[0] != source

    assert not tab.locator("#picture_b").is_visible()
    tab.click("#model_b input")
    tab.get_by_role("option", name="masks").click()
    beside = both["masks"].shown(0.9, 1)
    words(tab, "b", beside.summary())
    words(tab, "a", more.summary())
    assert picture_in(tab, "b")[1] == 1024
    assert picture_in(tab, "a")[0] != picture_in(tab, "b")[0]

    for threshold in (0.9, 0.6):  # the second file has what is shown then
        move(tab, "score", threshold)
        words(tab, "b", both["masks"].shown(threshold, 1).summary())
        with tab.expect_download() as download:
            tab.click("button#save_b")
        assert download.value.suggested_filename == "shapes_000000_detections.json"
        rows = json.loads(download.value.path().read_text("utf-8"))
        assert rows == json.loads(coco_file(both["masks"], threshold, 1)[0])

    drop(tab, broken / "cut.png")
    for pane in "ab":
        words(tab, pane, re.compile("cut.png: cannot be decoded: .*truncated"))
        tab.locator(f"#picture_{pane} img").wait_for(state="detached")
        assert tab.locator(f"button#save_{pane}").is_disabled()
    assert "Traceback" not in tab.content()
    drop(tab, scene)
    words(tab, "b", both["masks"].shown(0.6, 1).summary())

    local = (tab.address, tab.address.replace("http", "ws"), "data:", "blob:")
    assert tab.asked
    assert [url for url in tab.asked if not url.startswith(local)] == []
    assert hosts <= {"127.0.0.1", "localhost", "::1", None}


def test_the_tab_that_looks_inside_a_model(tab, eager, scene):
    drop(tab, scene)
    tab.get_by_role("tab", name="Look inside").click()
    tab.click("button#explain")
    inside = tab.frame_locator("#inside iframe")
    title = inside.get_by_role("heading", level=1)
    title.wait_for()
    assert title.inner_text() == "shapes_000000.png inside a FasterRCNN"
    viewer = inside.locator("[data-for=nms-detections]")
    viewer.locator("button.next").click()
    assert viewer.locator("output").inner_text().startswith("Step 1 of")
