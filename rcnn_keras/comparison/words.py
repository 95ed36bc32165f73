"""What the times say, in sentences with their numbers."""

from typing import Any

from rcnn_keras.comparison.published import FIGURES

QUOTED = {figure.what: figure.total or 0.0 for figure in FIGURES[:3]}
PAPER = {figure.what: figure.total or 0.0 for figure in FIGURES[3:6]}
REGIONS = 2000  # an image in the papers
TITLES = {"rcnn": "R-CNN", "fast_rcnn": "Fast R-CNN", "faster_rcnn": "Faster R-CNN"}


def whole(row: dict[str, Any]) -> float | None:
    """Return the seconds of all parts of a row; None if its search could not be timed."""
    parts = row["parts"].values()
    return None if any(value is None for value in parts) else sum(parts)


def without_proposals(row: dict[str, Any]) -> float:
    """Return the seconds of all parts but the proposals."""
    return sum(value for part, value in row["parts"].items() if part != "proposals")


def conclusions(study: dict[str, Any]) -> list[str]:
    """Return paragraphs on the order and the ratios of the test times of one data set."""
    said = []
    if study["vgg16"]:
        said += _of_vgg16({row["name"]: row for row in study["vgg16"]["rows"]})
    rows = {row["name"]: row for row in study["rows"]}
    fast, faster = (whole(rows[n]) if n in rows else None for n in ("fast_rcnn", "faster_rcnn"))
    if fast is not None and faster is not None:
        search = rows["fast_rcnn"]["parts"]["proposals"]
        said.append(
            f"Of the networks in the table of scores, Fast R-CNN spends {search / fast:.0%} of its "
            "time on the search, and Faster R-CNN, which has none, is "
            f"{fast / faster:.1f} times as fast. The quoted figures say "
            f"{QUOTED['Fast R-CNN'] / QUOTED['Faster R-CNN']:.1f}: where the network is quick, on "
            "a GPU or because it is small, the search is what is left."
        )
    if "rcnn" in rows and rows["rcnn"]["minutes"] is not None:
        said.append(
            "R-CNN's time in that table is not to be compared: its AlexNet is a small one, as "
            "every region goes through all of it, in training too. Equal networks are those of "
            "VGG-16."
        )
    if {"fast_rcnn", "fast_rcnn_svd"} <= set(rows):
        whole_head, thin = rows["fast_rcnn"]["parts"], rows["fast_rcnn_svd"]["parts"]
        scores = (rows[name]["scores"]["AP50"] for name in ("fast_rcnn", "fast_rcnn_svd"))
        before, after = ("none" if score is None else f"{score:.3f}" for score in scores)
        said.append(
            f"Truncated SVD takes the regions' work from {_ms(whole_head['regions'])} to "
            f"{_ms(thin['regions'])}, and AP50 from {before} to {after}; in the paper the whole "
            "from 0.32 s to 0.22 s, and mAP from 66.9 to 66.6."
        )
    return said


def _of_vgg16(rows: dict[str, dict[str, Any]]) -> list[str]:
    slow, fast = (without_proposals(rows[name]) for name in ("rcnn", "fast_rcnn"))
    thin = without_proposals(rows["fast_rcnn_svd"])
    theirs = PAPER["R-CNN"] / PAPER["Fast R-CNN"]
    text = (
        f"Without proposals, on the same VGG-16, image and {rows['rcnn']['boxes']:.0f} regions, "
        f"Fast R-CNN is **{slow / fast:.0f} times** as fast as R-CNN ({fast:.2f} s and "
        f"{slow:.1f} s), and with truncated SVD **{slow / thin:.0f} times** ({thin:.2f} s). The "
        f"paper has {theirs:.0f} and {PAPER['R-CNN'] / PAPER['Fast R-CNN, truncated SVD']:.0f}, "
        "with about 2,000 regions. By CPU time, which a busy machine changes less, it is "
        f"{rows['rcnn']['cpu'] / rows['fast_rcnn']['cpu']:.0f} and "
        f"{rows['rcnn']['cpu'] / rows['fast_rcnn_svd']['cpu']:.0f} here. R-CNN pays "
        "the whole network for each region, Fast R-CNN its dense layers alone"
    )
    if slow / fast < theirs and rows["rcnn"]["boxes"] < REGIONS:
        text += ", so that the factor grows with their number: fewer regions give a smaller one"
    said = [f"{text}."]
    times = {title: whole(rows[name]) for name, title in TITLES.items()}
    known = {title: seconds for title, seconds in times.items() if seconds is not None}
    if len(known) == len(TITLES):
        order = sorted(known, key=lambda title: known[title], reverse=True)
        same = "as in the papers" if order == list(TITLES.values()) else "not that of the papers"
        text = (
            f"With proposals the order is {', '.join(order)}, {same}. The ratios are "
            f"{_ratios(known)}; those of the quoted 49, 2.3 and 0.2 s are {_ratios(QUOTED)}."
        )
        if (
            known["Fast R-CNN"] / known["Faster R-CNN"]
            < QUOTED["Fast R-CNN"] / QUOTED["Faster R-CNN"]
        ):
            text += (
                " What a GPU shortens is the network: in the papers 0.3 s of it stood beside two "
                "seconds of search on a CPU. Where the network too takes seconds, as on a CPU, "
                "leaving out the search saves a smaller share; the step from R-CNN to Fast R-CNN "
                "saves arithmetic, and remains."
            )
        said.append(text)
    return said


def _ratios(times: dict[str, float]) -> str:
    """Return times as multiples of the last."""
    return " : ".join(f"{seconds / [*times.values()][-1]:.1f}" for seconds in times.values())


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
