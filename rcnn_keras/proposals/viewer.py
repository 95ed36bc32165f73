"""An image with its first proposals, as a picture and in a window."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rcnn_keras.data.dataset import Record
from rcnn_keras.visualize import draw

if TYPE_CHECKING:
    from matplotlib.backend_bases import Event


def draw_proposals(image: np.ndarray, boxes: np.ndarray, top: int) -> Image.Image:
    """Draw the first proposals of an image with their ranks from 1; the first one is on top.

    Args:
        image: `(H, W, 3)` uint8.
        boxes: `(R, 4)` `xyxy` in pixels, best first.
        top: maximum number to draw, at least 1.

    Raises:
        ValueError: for `top` below 1.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top!r}")
    height, width = image.shape[:2]
    count = min(top, len(boxes))
    ranks = np.arange(count)[::-1]
    record = Record(0, "image", height, width, boxes[ranks], ranks, np.zeros(count))
    return draw(image, record, classes=[str(rank + 1) for rank in range(count)])


def check_window() -> None:
    """Raise ValueError if matplotlib cannot open a window on this machine."""
    import matplotlib.pyplot as plt
    from matplotlib.backends import BackendFilter, backend_registry

    backend = plt.get_backend()
    if backend.lower() not in backend_registry.list_builtin(BackendFilter.INTERACTIVE):
        raise ValueError(f"matplotlib cannot open a window here: its backend is {backend}")


class ProposalViewer:
    """A matplotlib window that shows the first proposals of an image.

    The key m doubles how many are shown, l halves it, and q closes the window.

    Args:
        image: `(H, W, 3)` uint8.
        boxes: `(R, 4)` `xyxy` in pixels, best first; at least one.
        top: how many to show first.
    """

    def __init__(self, image: np.ndarray, boxes: np.ndarray, top: int):
        import matplotlib.pyplot as plt

        self.image, self.boxes, self.top = image, boxes, min(top, len(boxes))
        self.figure = plt.figure(layout="constrained")
        self._axes = self.figure.add_subplot()
        self._axes.set_axis_off()
        self._picture = self._axes.imshow(draw_proposals(image, boxes, self.top))
        self._set_title()
        canvas = self.figure.canvas
        manager = canvas.manager
        if manager is not None and manager.key_press_handler_id is not None:
            # matplotlib's own keys, for example l, which makes an axis logarithmic
            canvas.mpl_disconnect(manager.key_press_handler_id)
        canvas.mpl_connect("key_press_event", self.on_key)

    def on_key(self, event: "Event") -> None:
        """Handle a key that is pressed in the window."""
        key = getattr(event, "key", None)
        if key == "q":
            self.close()
        elif key == "m":
            self._show(min(2 * self.top, len(self.boxes)))
        elif key == "l":
            self._show(max(self.top // 2, 1))

    def show(self) -> None:
        """Wait until the window is closed."""
        import matplotlib.pyplot as plt

        plt.show(block=True)

    def close(self) -> None:
        """Close the window."""
        import matplotlib.pyplot as plt

        plt.close(self.figure)

    def _show(self, top: int) -> None:
        self.top = top
        self._picture.set_data(np.asarray(draw_proposals(self.image, self.boxes, top)))
        self._set_title()
        self.figure.canvas.draw_idle()

    def _set_title(self) -> None:
        self._axes.set_title(f"{self.top} of {len(self.boxes)} (m more, l fewer, q quit)")
