"""A preview window, made with Tk, which most Pythons include: carmask needs OpenCV without its own windows."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carmask.errors import CarmaskError

_SCREEN_SHARE = 0.9
_TEXT_AT_PX, _MARGIN_PX = 12, 4


class NoWindow(CarmaskError):
    """No window can be opened."""


class PreviewWindow:
    """Shows pictures until it is closed, or Escape or q is pressed. Use it only in the main thread."""

    def __init__(self, title: str, size_HW: tuple[int, int]) -> None:
        """Open a window for pictures of this size, reduced to fit the screen.

        Raises:
            NoWindow: Tk is not installed, or there is no screen.

        """
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise NoWindow(
                f"a window needs Tk ({error}); install it (on Debian and Ubuntu: python3-tk), or use --no-window"
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise NoWindow(f"no window can be opened ({error}); use --no-window") from error
        screen_HW = (self._root.winfo_screenheight(), self._root.winfo_screenwidth())
        shrink = max(1.0, *(side / (_SCREEN_SHARE * screen) for side, screen in zip(size_HW, screen_HW, strict=True)))
        self._size_WH = (round(size_HW[1] / shrink), round(size_HW[0] / shrink))
        self._root.title(title)
        self._root.resizable(width=False, height=False)
        self._photo: Any = ImageTk.PhotoImage("RGB", self._size_WH)
        canvas = tkinter.Canvas(
            self._root, width=self._size_WH[0], height=self._size_WH[1], highlightthickness=0, background="black"
        )
        canvas.pack()
        canvas.create_image(0, 0, image=self._photo, anchor="nw")
        self._textbox = canvas.create_rectangle(0, 0, 0, 0, fill="black", width=0)
        self._text = canvas.create_text(_TEXT_AT_PX, _TEXT_AT_PX, anchor="nw", fill="white", font=("TkFixedFont", 14))
        self._canvas = canvas
        self.is_open = True
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, lambda _: self.close())

    def show(self, image_HWC: NDArray[np.uint8], text: str) -> None:
        """Show a picture (uint8, 1 or 3 channels) with a line of text in its corner."""
        if not self.is_open:
            return
        # The resized picture has no axis for a single channel, and Pillow makes RGB of gray.
        self._photo.paste(Image.fromarray(cv2.resize(image_HWC, self._size_WH, interpolation=cv2.INTER_AREA)))
        self._canvas.itemconfigure(self._text, text=text)
        left, top, right, bottom = self._canvas.bbox(self._text)
        self._canvas.coords(self._textbox, left - _MARGIN_PX, top - _MARGIN_PX, right + _MARGIN_PX, bottom + _MARGIN_PX)

    def update(self) -> None:
        """Process the events of the user and of the screen."""
        if self.is_open:
            self._root.update()

    def close(self) -> None:
        """Close it; more than once does no harm."""
        if self.is_open:
            self.is_open = False
            self._root.destroy()
