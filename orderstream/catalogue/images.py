"""Main images: how alike two are, where they are at hand.

Law: what was not compared is told as such. No image library, no file, a file that is no image: not available, never alike.
A perceptual hash (64 bits of the cosine transform of a 32 x 32 grey picture) stays the same under scaling, compression and
watermarks, and sees no colour: two colours of one article look alike to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

SAME = 8
"""Bits of 64 by which two pictures of one thing differ at most."""

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")

Hash = int


class Images:
    """Pictures in a folder, by the name at the end of an article's or listing's image, by SKU, or by code."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._hashes: dict[Path, Hash | None] = {}

    @cached_property
    def missing(self) -> str | None:
        """Why no image can be compared here; None where they can."""
        if self._folder is None:
            return "没有给出图片目录（--images） · no folder of images was given (--images)"
        if not self._folder.is_dir():
            return f"图片目录 {self._folder} 不存在 · there is no folder {self._folder}"
        if _hasher() is None:
            return "没有安装 imagehash：pip install 'orderstream[images]' · imagehash is not installed"
        return None

    def hash(self, image: str | None, *names: str) -> Hash | None:
        """The hash of the first picture there is: of `image` (a URL or file name), else of one named so; None: not available."""
        if self.missing is not None or self._folder is None:
            return None
        # the name alone: a URL or a path in a table does not lead out of the folder
        wanted = [Path(unquote(urlsplit(image).path)).name] if image else []
        wanted += [f"{name}{suffix}" for name in names if name and name == Path(name).name for suffix in _SUFFIXES]
        for name in wanted:
            path = self._folder / name
            if name and path.is_file():
                if path not in self._hashes:
                    self._hashes[path] = _read(path)
                return self._hashes[path]
        return None


def apart(one: Hash, other: Hash) -> int:
    """Bits by which two hashes differ, of 64."""
    return (one ^ other).bit_count()


def _read(path: Path) -> Hash | None:
    hasher = _hasher()
    assert hasher is not None
    return hasher(path)


def _hasher() -> Callable[[Path], Hash | None] | None:
    try:
        import imagehash  # noqa: PLC0415  an extra
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415
    except ModuleNotFoundError:
        return None

    def read(path: Path) -> Hash | None:
        try:
            with Image.open(path) as picture:
                return int(str(imagehash.phash(picture)), 16)
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError):
            return None

    return read
