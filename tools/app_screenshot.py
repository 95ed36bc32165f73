"""Take docs/app.png: the page of `rcnn app` with a drawn scene and two models side by side.

    python tools/app_screenshot.py shapes shapes_boxes.keras

Needs Chromium, the extra `app`, and playwright.
"""

import argparse
import os
import re
import shutil
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from PIL import Image

from rcnn_keras.app import serve
from rcnn_keras.data import draw_shapes
from rcnn_keras.presets import from_preset

PATIENCE = 120_000  # milliseconds


def main() -> None:
    """Read the command line, serve the page, use it and take the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs=2, help="names or .keras files of detectors of shapes")
    parser.add_argument("--scene", type=int, default=1, help="number of the scene to drop")
    parser.add_argument("--out", type=Path, default=Path("docs/app.png"))
    args = parser.parse_args()
    from playwright.sync_api import expect, sync_playwright

    scene = draw_shapes(args.scene + 1, size=(160, 192), seed=77)[args.scene].path
    models = {name: from_preset(name) for name in args.models}
    page, url = serve(models, wait=False)
    with sync_playwright() as driver:
        chromium = shutil.which("chromium") or shutil.which("chrome")
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 900, "height": 850})
        tab.goto(url)
        tab.click("#model_b input", timeout=PATIENCE)
        tab.get_by_role("option", name=args.models[1]).click()
        tab.set_input_files("#file input[type=file]", scene)
        for pane in "ab":
            words = tab.locator(f"#found_{pane}").get_by_role("textbox")
            expect(words).to_have_value(re.compile("."), timeout=PATIENCE)
            tab.locator(f"#picture_{pane} img").wait_for()
        tab.wait_for_timeout(1000)  # what fades in is there then
        tab.screenshot(path=args.out)
        browser.close()
    page.close()
    Image.open(args.out).quantize(256).save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
