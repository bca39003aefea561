"""Mistakes as pictures: what the network saw, in small, and many of them on one sheet."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from striate.evaluation.result import Evaluation, Outcome, shown
from striate.images import ImageError, Preset, load

_TILE, _GAP, _COLUMNS = 160, 12, 6
_LINE = 15
_PAPER, _INK, _PALE, _WRONG = "#ffffff", "#1a1a1a", "#767676", "#b3261e"
# What a sheet may be called, and that in Pillow's words.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def thumbnail(path: Path, preset: Preset, pixels: int) -> Image.Image:
    """The part of an image that the network sees; grey where it cannot be read any more."""
    try:
        return preset.frame(load(path)).resize((pixels, pixels), Image.Resampling.LANCZOS)
    except (ImageError, OSError):
        return Image.new("RGB", (pixels, pixels), "#c0c0c0")


def contact_sheet(evaluation: Evaluation, mistakes: Sequence[Outcome]) -> Image.Image:
    """`mistakes` side by side, each over its class, the wrong guess and the file's name."""
    columns = max(1, min(_COLUMNS, len(mistakes)))
    rows = -(-len(mistakes) // columns)
    high = _TILE + 3 * _LINE + _GAP + 6
    # Wide enough for the title where there are few mistakes.
    width = _GAP + max(3, columns) * (_TILE + _GAP)
    sheet = Image.new("RGB", (width, 2 * _GAP + 20 + rows * high), _PAPER)
    draw = ImageDraw.Draw(sheet)
    title, text = ImageFont.load_default(15), ImageFont.load_default(12)
    head = f"{evaluation.model}: its surest mistakes" if mistakes else "no mistakes"
    draw.text((_GAP, _GAP), head, _INK, title)
    preset = Preset.of(evaluation.preset)
    for number, one in enumerate(mistakes):
        left = _GAP + number % columns * (_TILE + _GAP)
        top = 2 * _GAP + 20 + number // columns * high
        sheet.paste(thumbnail(one.path, preset, _TILE), (left, top))
        lines = (
            (f"is {evaluation.name(one.label)}", _INK),
            (f"{one.confidence:.0%} {evaluation.name(one.guess)}", _WRONG),
            (shown(Path(one.path.name)), _PALE),
        )
        for line, (words, colour) in enumerate(lines):
            place = (left, top + _TILE + 4 + line * _LINE)
            draw.text(place, _cut(words, text), colour, text)
    return sheet


def _cut(words: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont") -> str:
    """As much of `words` as fits under a tile."""
    words = "".join(letter if letter.isprintable() else "?" for letter in words)
    if font.getlength(words) <= _TILE:
        return words
    while words and font.getlength(words + "...") > _TILE:
        words = words[:-1]
    return words + "..."
