import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backend_bases import KeyEvent
from PIL import ImageColor

from rcnn_keras.proposals.viewer import ProposalViewer, check_window, draw_proposals
from rcnn_keras.visualize import PALETTE

IMAGE = np.full((120, 160, 3), 90, np.uint8)
# Apart from each other, below one another's tags.
BOXES = np.float32([[10 + 30 * i, 60, 30 + 30 * i, 100] for i in range(5)])


@pytest.fixture
def viewer():
    before = plt.get_backend()
    plt.switch_backend("agg")
    viewer = ProposalViewer(IMAGE, BOXES, 2)
    yield viewer
    plt.close("all")
    plt.switch_backend(before)


def press(viewer, key):
    canvas = viewer.figure.canvas
    canvas.callbacks.process("key_press_event", KeyEvent("key_press_event", canvas, key))


def drawn(picture):
    """Which of the boxes are seen in a picture, by the lower border in their colour."""
    pixels = np.asarray(picture)[..., :3]
    colours = [ImageColor.getrgb(PALETTE[i]) for i in range(5)]
    return [i for i in range(5) if (pixels[99, 20 + 30 * i] == colours[i]).all()]


def shown(viewer):
    return drawn(viewer.figure.axes[0].images[0].get_array())


def test_only_the_first_proposals_are_drawn():
    assert drawn(draw_proposals(IMAGE, BOXES, 3)) == [0, 1, 2]
    assert drawn(draw_proposals(IMAGE, BOXES, 50)) == [0, 1, 2, 3, 4]
    assert (IMAGE == 90).all()
    with pytest.raises(ValueError, match="top must be at least 1, not 0"):
        draw_proposals(IMAGE, BOXES, 0)


def test_the_first_proposal_is_drawn_on_top():
    boxes = np.float32([[10, 60, 100, 100], [10, 60, 100, 100]])
    colour = ImageColor.getrgb(PALETTE[0])
    assert (np.asarray(draw_proposals(IMAGE, boxes, 2))[99, 50] == colour).all()


def test_keys_show_more_and_fewer_proposals(viewer):
    assert shown(viewer) == [0, 1]
    press(viewer, "m")
    assert shown(viewer) == [0, 1, 2, 3]
    press(viewer, "m")
    assert shown(viewer) == [0, 1, 2, 3, 4]  # there are no more
    assert viewer.figure.axes[0].get_title().startswith("5 of 5")
    for expected in ([0, 1], [0], [0]):
        press(viewer, "l")
        assert shown(viewer) == expected
    assert viewer.figure.axes[0].get_title().startswith("1 of 5")
    press(viewer, "x")
    assert shown(viewer) == [0]
    assert viewer.figure.axes[0].get_yscale() == "linear"  # matplotlib's own l is off


def test_the_viewer_shows_at_most_all_proposals():
    plt.switch_backend("agg")
    viewer = ProposalViewer(IMAGE, BOXES, 100)
    press(viewer, "l")
    assert shown(viewer) == [0, 1]
    plt.close("all")


def test_q_closes_the_window(viewer):
    assert plt.fignum_exists(viewer.figure.number)
    press(viewer, "q")
    assert not plt.fignum_exists(viewer.figure.number)


def test_a_backend_without_windows_is_refused(viewer):
    with pytest.raises(ValueError, match="cannot open a window here: its backend is agg"):
        check_window()
