"""docs/review: its figures are drawn by the package, its names exist, its numbers hold."""

import importlib
import io
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rcnn_keras as rk

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))  # where the package `figures` lies

from figures import (  # noqa: E402
    box_regression,
    family,
    fast_rcnn,
    faster_rcnn,
    mask_rcnn,
    metrics,
    negatives_and_nms,
    selective_search,
    style,
)
from figures.all_figures import FIGURES  # noqa: E402

REVIEW = ROOT / "docs" / "review"
PAGES = {path.stem: path.read_text("utf-8") for path in sorted(REVIEW.glob("*.md"))}
CONCEPTS = sorted(set(PAGES) - {"index"})
DRAWN = REVIEW / "figures"
PAGE = pytest.mark.parametrize("page", CONCEPTS)


def says(page, *phrases):
    """Check that a page has these phrases, whatever its line breaks."""
    text = " ".join(PAGES[page].split())
    assert [phrase for phrase in phrases if phrase not in text] == []


# figures


def figures_of(page):
    return re.findall(r"!\[([^\]]*)\]\(figures/([\w.-]+)\)", PAGES[page])


def test_every_figure_is_used_once_and_has_a_function_that_draws_it():
    used = [file for page in PAGES for _, file in figures_of(page)]
    assert sorted(used) == sorted(FIGURES)
    assert sorted(path.name for path in DRAWN.iterdir()) == sorted(FIGURES)


@PAGE
def test_every_figure_has_a_text_in_its_place(page):
    texts = [text for text, _ in figures_of(page)]
    assert texts
    assert all(len(text) > 40 for text in texts), texts


def test_figures_are_small_and_fit_a_page():
    assert sum(path.stat().st_size for path in DRAWN.iterdir()) < 4_000_000
    for path in DRAWN.iterdir():
        with Image.open(path) as image:
            assert 700 <= image.width <= 1400, path
            assert image.is_animated if path.suffix == ".gif" else True, path


def differences(name, tmp_path):
    """Draw a figure again, and return how far its frames are from the stored ones, in 0..255."""
    FIGURES[name](tmp_path / name)
    with Image.open(tmp_path / name) as new, Image.open(DRAWN / name) as old:
        assert (new.size, new.n_frames) == (old.size, old.n_frames)
        for number in range(new.n_frames):
            new.seek(number)
            old.seek(number)
            frames = (np.asarray(image.convert("RGB"), float) for image in (new, old))
            yield np.abs(np.subtract(*frames)).mean()


def test_a_figure_that_is_drawn_again_is_the_same(tmp_path):
    assert max(differences("average_precision.png", tmp_path)) < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FIGURES))
def test_figures_that_are_drawn_again_are_the_same(name, tmp_path):
    assert max(differences(name, tmp_path)) < 3


# pages


def test_the_review_has_nine_pages_in_its_list():
    listed = re.search(r"```\{toctree\}\n:hidden:\n\n(.*?)```", PAGES["index"], re.DOTALL)[
        1
    ].split()
    assert len(listed) == 9
    assert sorted(listed) == CONCEPTS
    assert [name for name in listed if f"]({name}.md)" not in PAGES["index"]] == []


@PAGE
def test_every_page_has_equations_or_a_table_and_names_its_code(page):
    assert PAGES[page].count("In the code: ") >= 2
    assert "$$" in PAGES[page] or page == "comparison"


@PAGE
def test_equations_are_closed(page):
    text = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    assert text.count("$$") % 2 == 0
    assert text.replace("$$", "").count("$") % 2 == 0


def code_of(page):
    """Return the paragraphs that say where a page's code lives."""
    return re.findall(r"^In the code: (.*?)(?:\n\n|\Z)", PAGES[page], re.DOTALL | re.MULTILINE)


@PAGE
def test_names_of_the_code_exist(page):
    found = 0
    for paragraph in code_of(page):
        text = " ".join(paragraph.split())
        for name in re.findall(r"\{py:obj\}`([\w.]+)`", text):
            module, _, last = name.rpartition(".")
            owner = importlib.import_module(module)
            assert hasattr(owner, last) or importlib.import_module(name), name
            found += 1
        pattern = (
            r"((?:`\w+`(?:, and |, | and )?)+)(?: are the rules| is the rule above)? in `(\S+?)`"
        )
        for names, path in re.findall(pattern, text):
            if path.startswith("rcnn_keras/"):
                module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
                for name in re.findall(r"`(\w+)`", names):
                    assert hasattr(module, name), f"{path}: {name}"
                    found += 1
            else:
                assert (ROOT / path).exists(), path
        for path in re.findall(r"`((?:rcnn_keras|tools)/\S+?)`", text):
            assert (ROOT / path).exists(), path
    assert found


@PAGE
def test_blocks_print_what_they_say(page):
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGES[page], re.DOTALL | re.MULTILINE):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(block, names)
        said = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        assert said == [re.sub(r"\n\s*", " ", line) for line in printed.getvalue().splitlines()]


# numbers


def test_numbers_of_overlaps():
    shifts = [metrics.shifted_iou(share, True) for share in (0.1, 0.25, 0.5)]
    a, b, c = (f"{value:.2f}" for value in shifts)
    says(
        "metrics",
        f"moved by 10% of both sides has an IoU of {a}, at 25% it is {b} and at 50% it is {c}",
    )
    assert metrics.shifted_iou(1 / 3, False) == pytest.approx(0.5)
    most = 1 - np.sqrt(2 / 3)
    assert metrics.shifted_iou(most, True) == pytest.approx(0.5)
    says("metrics", f"off by a third of one side, or by {most:.0%} of both")


def test_numbers_of_the_kinds():
    dataset, found = metrics.detections_of_each_kind()
    errors = rk.evaluation.DetectionErrors(dataset, {dataset[0].image_id: found}, iou=0.5)
    for i, (kind, overlap) in enumerate(zip(errors.kinds, errors.overlaps, strict=True)):
        name = rk.evaluation.errors.KINDS[kind]
        of_box = f"{i + 1}: {found.class_names[i]} {found.scores[i]:.2f}"
        says("metrics", f"| {of_box} | {overlap:.2f} | {name} |")
    assert sorted(dataset.classes[k] for k in errors.missed[:, 2]) == ["square", "star", "triangle"]


def test_numbers_of_the_curve():
    curve = metrics.EXAMPLE
    hits = np.cumsum(curve.hits)
    for i, right in enumerate(curve.hits):
        row = f"| {i + 1} | {curve.scores[i]:.2f} | {'yes' if right else 'no'} | {hits[i]} "
        row += f"| {i + 1 - hits[i]} | {curve.precision[i]:.3f} | {curve.recall[i]:.3f} |"
        says("metrics", row)
    says(
        "metrics",
        f"the eleven points give {curve.eleven_points():.3f} and the area {curve.area():.3f}",
        f"everything above {curve.recall[-1]:.3f}",
    )
    assert curve.scores[np.argmax(curve.recall >= 0.5)] == 0.85


def test_numbers_of_selective_search():
    image, _ = style.scene(selective_search.SCENE)
    a, b, c = (selective_search.segment(image, k).max() + 1 for k in (50, 150, 450))
    says("selective-search", f"for k of 50, 150 and 450: {a}, {b} and {c} regions")
    _, same, different = selective_search.triangle_and_circle()
    halves, pair = (x.similarities(y, 240 * 320) for x, y in (same, different))
    says(
        "selective-search",
        f"share {halves['colour']:.2f} of their colours and {halves['texture']:.2f} of their",
        f"share {pair['colour']:.2f} and {pair['texture']:.2f}",
        f"{halves['size']:.2f}, and fill prefers the halves, {halves['fill']:.2f} against "
        f"{pair['fill']:.2f}",
    )
    assert round(pair["size"], 2) == round(halves["size"], 2)


def test_the_measures_of_the_grouping_are_symmetric_and_merge_to_the_whole():
    image, (a, b), _ = selective_search.triangle_and_circle()
    both, size = a.merged(b), 240 * 320
    assert a.similarities(b, size) == pytest.approx(b.similarities(a, size))
    whole = selective_search.Region.of(image, a.mask | b.mask)
    np.testing.assert_allclose(both.colour, whole.colour, atol=1e-12)
    np.testing.assert_array_equal(both.box, whole.box)
    assert both.size == whole.size


def test_numbers_of_box_regression():
    _, _, t = box_regression.example()
    a, b, c, d = (f"{value:+.3f}" for value in t)
    says("box-regression", f"the deltas are {a}, {b}, {c} and {d}")
    growth = box_regression.largest_growth()
    says("box-regression", f"{np.log(growth):.3f}$, a factor of {growth:.1f}")


def test_numbers_of_suppression():
    boxes, scores = negatives_and_nms.triangles()
    done = negatives_and_nms.steps(boxes, scores, negatives_and_nms.NMS_THRESHOLD)
    words = [f"keeps {scores[kept]:.2f} and removes two" for kept, removed in done]
    assert [len(removed) for _, removed in done] == [2, 2]
    says("hard-negatives-and-nms", *words)
    boxes, scores, overlap = negatives_and_nms.stars()
    left = [len(rk.ops.nms_loop(boxes, scores, t)) for t in negatives_and_nms.THRESHOLDS]
    assert left == [1, 2, 5]
    says("hard-negatives-and-nms", f"overlap by an IoU of {overlap:.2f}")


def test_steps_of_suppression_are_those_of_the_kernel():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (30, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 30, (30, 2))], axis=1).astype(np.float32)
    scores = rng.random(30).astype(np.float32)
    done = negatives_and_nms.steps(boxes, scores, 0.3)
    index, count = rk.ops.nms(boxes[None], scores[None], 0.3, 30)
    assert [kept for kept, _ in done] == np.asarray(index)[0, : int(count[0])].tolist()
    assert len(done) + sum(len(removed) for _, removed in done) == 30


def test_numbers_of_roi_pool():
    roi = fast_rcnn.ROI
    x1, y1, x2, y2 = (int(v) for v in fast_rcnn.rounded(roi))
    width, height = (roi[2:] - roi[:2]) / fast_rcnn.STRIDE
    says(
        "fast-rcnn",
        f"{tuple(int(v) for v in roi)} becomes columns {x1} to {x2} and rows {y1} to {y2}",
        f"that is {x2 - x1 + 1} x {y2 - y1 + 1} positions, although the RoI is {width:.2f} x "
        f"{height:.2f}",
    )
    values, slope = fast_rcnn.pooled(roi, fast_rcnn.SECOND_ROI)
    features = fast_rcnn.feature_map()
    for k, (a, c, b, d) in enumerate(fast_rcnn.cells(roi)):
        assert features[c:d, a:b].max() == values[0].ravel()[k]
    assert (slope.sum(), (slope > 0).sum(), (slope == 0).sum()) == (8, 5, 59)
    assert (slope[features == 97], slope[features == 95]) == (3, 2)
    says("fast-rcnn", "reach five positions: 97 is the maximum of three cells and 95 of two")


def test_numbers_of_anchors():
    paper = faster_rcnn.count(faster_rcnn.PAPER_SHAPE, 640, 960)
    own = faster_rcnn.count(faster_rcnn.SHAPE, faster_rcnn.HEIGHT, faster_rcnn.WIDTH)
    typical = faster_rcnn.count((38, 63), 600, 1000)
    says(
        "faster-rcnn",
        f"has {paper.positions:,} of them and so 9 x {paper.positions:,} = **{paper.all:,}**",
        f"of the {paper.all:,}, laid over 960 x 640 pixels, {paper.inside:,} remain",
        f"{own.positions:,} positions and {own.all:,} anchors, of which {own.inside:,} remain",
        f"a 1000 x 600 image keeps {typical.inside:,}",
    )
    tallest = rk.ops.base_anchors([512], [2.0])[0]
    assert tallest[3] - tallest[1] == 724


def test_numbers_of_labels_and_of_the_sample():
    kinds = faster_rcnn.label_counts()
    says(
        "faster-rcnn",
        f"{kinds['positive']} are positive, {kinds['neutral']} neutral and {kinds['negative']:,} "
        f"negative; {kinds['crossing']:,} cross the border",
    )
    second = kinds.pop("by the second rule")
    says(
        "faster-rcnn", f"circle has {kinds['positive'] - second} that", f"{second} are positive by"
    )
    assert sum(kinds.values()) == len(faster_rcnn.anchors())
    indices, match_labels = faster_rcnn.sampled()
    positives = int((match_labels == 1).sum())
    assert len(np.unique(indices)) == 256
    np.testing.assert_array_equal(faster_rcnn.labels()[0][indices], match_labels)
    says("faster-rcnn", f"it is {positives} and {256 - positives}")


def test_numbers_of_roi_align():
    x1, y1, x2, y2 = mask_rcnn.ROI * mask_rcnn.SCALE
    says(
        "mask-rcnn",
        f"15 x 25/128 = {15 * mask_rcnn.SCALE:.2f} positions wide",
        f"from {x1:.2f} to {x2:.2f} and from {y1:.2f} to {y2:.2f}",
        f"4 positions in {(mask_rcnn.positions() == 4).mean():.0%} of all places and 3 in the",
    )
    assert set(mask_rcnn.positions()) == {3, 4}
    # What RoIPool reads is the window that the figure draws.
    pool, _ = mask_rcnn.pooled()
    features = mask_rcnn.small_map()
    window = features[8:12, 9:13].reshape(2, 2, 2, 2).max(axis=(1, 3))
    np.testing.assert_array_equal(pool, window)


def test_numbers_of_the_comparison():
    for name, (quoted, own) in family.whole_times().items():
        [row] = re.findall(rf"^\| {name} \| (.*) \|$", PAGES["comparison"], re.MULTILINE)[-1:]
        columns = row.split(" | ")
        assert (columns[0], columns[2]) == (f"{quoted:g}", f"{own:g}")
    rows = family.measured()
    rcnn, fast, faster = (rows[n] for n in ("R-CNN", "Fast R-CNN", "Faster R-CNN, joint training"))
    without = [family.seconds(row["without proposals"]) for row in (rcnn, fast)]
    says(
        "comparison",
        f"the search {without[0]} s become {without[1]} s here, "
        f"{without[0] / without[1]:.0f} times less",
        f"the search of {fast['proposals']} is a smaller share",
        f"gain is {family.seconds(fast['whole']) / family.seconds(faster['whole']):.1f} times",
        f"the number of regions is {rcnn['boxes an image']}",
    )
    published = {(f.what, f.source[:6]): f for f in family.PUBLISHED}
    fast_paper = published["Fast R-CNN on selective search", "Faster"]
    says("comparison", f"the search took {fast_paper.proposals} of {fast_paper.total} seconds")


# numbers that take long


@pytest.mark.slow
def test_numbers_of_the_small_detector():
    summary = metrics.coco_scores().summary()
    says(
        "metrics",
        f"AP50 is {summary['AP50']:.2f}, AP75 is {summary['AP75']:.2f}",
        f"the other eight thresholds is {summary['AP']:.2f}",
    )
    a, b, c = (f"{mask_rcnn.pasted_iou(size):.3f}" for size in (28, 14, 7))
    says("mask-rcnn", f"an IoU of {a} with", f"with 14 it is {b} and with 7 it is {c}")
    ours, by_equation = mask_rcnn.loss()
    assert ours == pytest.approx(by_equation, rel=1e-5)
    says("mask-rcnn", f"the loss is {ours:.3f}")


@pytest.mark.slow
def test_numbers_of_proposals_and_mining():
    regions = len(selective_search.grouping()[1][0])
    says(
        "selective-search", f"From {regions} first regions, {regions - 1} merges make {regions} + "
    )
    found = selective_search.recall_by_count()
    a, b, c = (f"{found[n][99]:.0%}" for n in ("selective search", "objectness", "random windows"))
    says(
        "selective-search",
        f"selective search find {a} of the objects at an IoU of 0.5, those of objectness {b}, and "
        f"100 random windows {c}",
    )
    svms = negatives_and_nms.mined(12, 10)
    assert svms.converged
    for number, mined in enumerate(svms.rounds, start=1):
        row = [number, *(mined[key][0] for key in ("added", "kept", "retrainings"))]
        says("hard-negatives-and-nms", f"| {' | '.join(map(str, row))} |")


@pytest.mark.slow
def test_numbers_of_ridge_regression():
    study = box_regression.ridge_study()
    count, features = study["count"]
    says(
        "box-regression",
        f"fits {features:,} features of the small detector's pyramid to {count:,} windows",
        f"mean IoU grows from {study['before'].mean():.2f} to {study['after'].mean():.2f}",
    )
    best = sorted(box_regression.LAMBDAS[np.argsort(study["other"])[:2]])
    assert best == [100, 1000]
