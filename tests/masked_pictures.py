"""Ten pictures with known masks: the shipped photos with outlines drawn by hand, and composites.

Outlines are `(column, row)` corners, as an image viewer shows them. What cannot be told (the cat's
chin, out of focus) is cropped away.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PHOTOS = Path(__file__).resolve().parent.parent / "examples" / "photos"

CAT = [
    (38, 0), (34, 40), (32, 80), (36, 105), (20, 118), (0, 128), (0, 270), (296, 270), (305, 262),
    (312, 250), (314, 235), (322, 215), (335, 198), (350, 180), (356, 160), (362, 140), (362, 100),
    (355, 82), (360, 72), (366, 58), (375, 40), (385, 20), (395, 0),
]  # fmt: skip
CUP = [
    (176, 108), (180, 75), (198, 47), (230, 25), (265, 17), (300, 17), (340, 26), (375, 47),
    (396, 75), (406, 105), (403, 135), (398, 165), (388, 195), (375, 220), (355, 240), (335, 262),
    (325, 280), (295, 285), (265, 282), (255, 272), (235, 300), (220, 307), (203, 302), (197, 285),
    (203, 258), (213, 240), (188, 215), (180, 185), (176, 150),
]  # fmt: skip
SAUCER = [
    (78, 190), (85, 155), (100, 130), (125, 105), (155, 82), (178, 70), (200, 45), (230, 25),
    (270, 17), (300, 17), (340, 26), (375, 47), (390, 66), (398, 68), (415, 67), (424, 75),
    (422, 90), (417, 105), (435, 125), (455, 150), (470, 180), (478, 205), (480, 235), (474, 265),
    (460, 295), (440, 320), (415, 342), (385, 362), (345, 378), (310, 387), (280, 389), (245, 385),
    (205, 372), (170, 352), (140, 330), (115, 305), (95, 275), (82, 245),
]  # fmt: skip
PAGODA = [
    (195, 30), (213, 30), (213, 45), (216, 58), (225, 75), (245, 92), (262, 97), (280, 103),
    (298, 107), (300, 113), (318, 117), (319, 125), (295, 137), (293, 158), (305, 165), (328, 175),
    (325, 180), (318, 182), (319, 225), (327, 228), (325, 238), (333, 243), (351, 255), (345, 262),
    (330, 270), (341, 272), (341, 303), (349, 312), (348, 322), (372, 333), (350, 355), (330, 370),
    (310, 368), (300, 380), (288, 386), (245, 392), (225, 385), (205, 368), (185, 362), (158, 352),
    (150, 338), (140, 332), (125, 335), (115, 340), (75, 333), (75, 320), (80, 318), (80, 278),
    (65, 272), (64, 265), (78, 250), (95, 247), (93, 233), (100, 232), (100, 185), (90, 183),
    (85, 172), (100, 165), (120, 158), (119, 140), (105, 133), (96, 130), (98, 105), (115, 103),
    (140, 97), (165, 82), (185, 68), (193, 60), (193, 50), (196, 45),
]  # fmt: skip
TREES_RIGHT = [
    (320, 427), (335, 380), (350, 360), (370, 345), (385, 325), (405, 318), (430, 310), (455, 295),
    (480, 295), (500, 300), (520, 290), (535, 280), (555, 285), (560, 262), (552, 255), (550, 225),
    (560, 205), (575, 180), (580, 155), (595, 140), (610, 138), (625, 155), (640, 160), (640, 427),
]  # fmt: skip
TREES_LEFT = [
    (0, 290), (20, 300), (25, 320), (40, 340), (75, 345), (100, 340), (130, 330), (150, 332),
    (160, 352), (190, 362), (210, 375), (230, 390), (260, 395), (285, 395), (292, 427), (0, 427),
]  # fmt: skip
BRANCH = [
    (0, 165), (10, 180), (30, 190), (45, 205), (65, 220), (75, 235), (60, 240), (45, 245),
    (15, 260), (0, 262),
]  # fmt: skip
MAN = [
    (0, 258), (18, 232), (30, 215), (45, 190), (60, 165), (75, 145), (95, 130), (130, 124),
    (150, 107), (162, 105), (165, 90), (180, 75), (200, 67), (220, 68), (240, 78), (255, 92),
    (268, 108), (268, 125), (262, 133), (255, 140), (254, 165), (245, 175), (242, 190), (243, 215),
    (247, 245), (262, 225), (270, 208), (288, 200), (288, 290), (262, 305), (247, 312), (230, 307),
    (205, 293), (180, 330), (140, 380), (150, 430), (152, 512), (138, 512), (120, 480), (100, 447),
    (90, 512), (0, 512),
]  # fmt: skip
LEGS = (
    [(284, 312), (312, 312), (312, 345), (284, 345)],
    [(286, 200), (300, 200), (300, 490), (286, 490)],
    [(280, 325), (290, 330), (262, 460), (240, 512), (230, 512), (250, 430)],
    [(250, 460), (265, 460), (300, 475), (300, 490), (245, 495)],
    [(305, 330), (314, 328), (408, 512), (398, 512)],
)
DAHLIA = [
    (315, 85), (335, 92), (350, 92), (375, 100), (388, 112), (400, 113), (412, 132), (425, 140),
    (430, 165), (440, 190), (446, 220), (443, 245), (435, 265), (430, 285), (418, 305), (408, 320),
    (395, 332), (380, 340), (360, 345), (345, 352), (325, 358), (300, 358), (280, 355), (260, 350),
    (240, 345), (228, 335), (205, 325), (198, 305), (185, 290), (178, 275), (170, 255), (168, 235),
    (169, 210), (178, 195), (176, 180), (180, 170), (190, 170), (187, 150), (195, 135), (205, 130),
    (212, 115), (228, 112), (245, 100), (265, 95), (285, 95), (300, 88),
]  # fmt: skip
BUD = [
    (288, 410), (295, 398), (320, 390), (335, 378), (348, 375), (370, 390), (390, 378), (405, 378),
    (420, 380), (435, 392), (441, 405), (440, 420), (465, 425), (470, 427), (292, 427),
]  # fmt: skip

Outline = list[tuple[int, int]]


@dataclass(frozen=True)
class Picture:
    """An image, and which of its pixels belong to what is asked for, bool`[x, y]`."""

    name: str
    image: Image.Image
    mask: np.ndarray

    def points(self, count, seed=0, margin=6):
        """`count` pixels `[n, 2]` (row, column) inside and as many outside, off the outline.

        As a person would: spread out, by taking of several random pixels the farthest from those
        before.
        """
        random = np.random.default_rng(seed)
        return tuple(self._spread(inside, count, margin, random) for inside in (True, False))

    def _spread(self, inside, count, margin, random):
        there = Image.fromarray(self.mask == inside)
        size = 2 * margin + 1
        sure = np.asarray(there.convert("L").filter(ImageFilter.MinFilter(size))) > 0
        all_pixels = np.argwhere(sure)
        chosen = [all_pixels[random.integers(len(all_pixels))]]
        while len(chosen) < count:
            tried = all_pixels[random.integers(len(all_pixels), size=8)]
            nearest = np.min([np.abs(tried - one).sum(1) for one in chosen], 0)
            chosen.append(tried[nearest.argmax()])
        return np.array(chosen)


def intersection_over_union(found, mask):
    return float((found & mask).sum() / (found | mask).sum())


def filled(size, *outlines):
    """Where the outlines enclose, bool`[x, y]`; `size` is (width, height)."""
    canvas = Image.new("1", size)
    draw = ImageDraw.Draw(canvas)
    for outline in outlines:
        draw.polygon(outline, fill=1)
    return np.asarray(canvas).copy()


def photo(name):
    with Image.open(PHOTOS / name) as image:
        return image.convert("RGB")


def pasted(background, source, outline, scale, place):
    """`background` with what `outline` encloses in `source`, at `place` (column, row), scaled."""
    mask = Image.fromarray(filled(source.size, outline))
    box = mask.getbbox()
    size = tuple(round(scale * n) for n in mask.crop(box).size)
    piece = source.crop(box).resize(size, Image.Resampling.BILINEAR)
    stencil = mask.crop(box).convert("L").resize(size, Image.Resampling.BILINEAR)
    stencil = stencil.point(lambda value: 255 * (value > 127))
    image, whole = background.copy(), Image.new("L", background.size)
    image.paste(piece, place, stencil)
    whole.paste(stencil, place)
    return image, np.asarray(whole) > 0


def pictures():
    """The ten pictures."""
    cat, coffee, china, flower, camera = (
        photo(name)
        for name in ("chelsea.png", "coffee.png", "china.jpg", "flower.jpg", "camera.png")
    )
    frame = (0, 0, 451, 270)
    grass = np.zeros((512, 512), bool)
    grass[246:] = True
    grass &= ~filled((512, 512), MAN, *LEGS)
    grey_cat = cat.convert("L").convert("RGB")
    return [
        Picture("cat", cat.crop(frame), filled((451, 270), CAT)),
        Picture("cup", coffee, filled(coffee.size, CUP)),
        Picture("cup and saucer", coffee, filled(coffee.size, SAUCER)),
        Picture("pagoda", china, filled(china.size, PAGODA)),
        Picture("trees", china, filled(china.size, TREES_RIGHT, TREES_LEFT, BRANCH)),
        Picture("man", camera, filled(camera.size, MAN)),
        Picture("grass", camera, grass),
        Picture("dahlias", flower, filled(flower.size, DAHLIA, BUD)),
        Picture("dahlia on wood", *pasted(coffee, flower, DAHLIA, 0.42, (474, 120))),
        Picture("cat on grass", *pasted(camera, grey_cat, CAT, 0.55, (290, 300))),
    ]
