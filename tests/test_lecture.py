"""The lecture does what it shows: every block runs, prints what stands beneath it, and draws."""

import re
from pathlib import Path

import numpy as np
import pytest
from lecture import PAGE, PICTURES, blocks, outputs
from PIL import Image

TEXT = PAGE.read_text("utf-8")
ROOT = PAGE.parent.parent


def test_every_block_prints_and_draws_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    drawn = tmp_path / "docs" / "lecture"
    drawn.mkdir(parents=True)
    monkeypatch.chdir(drawn.parent)
    for block, printed in outputs(TEXT):
        assert bool(printed) == (block.shown is not None), f"line {block.line}"
        if not block.measured:
            assert printed == (block.shown or ""), f"line {block.line}"
    assert {path.name for path in drawn.iterdir()} == {path.name for path in PICTURES.iterdir()}
    for path in drawn.glob("*.png"):
        new, old = (np.asarray(Image.open(one), np.float64) for one in (path, PICTURES / path.name))
        assert new.shape == old.shape
        assert np.abs(new - old).mean() < 2
    for path in drawn.glob("*.svg"):
        assert words(path) == words(PICTURES / path.name)


def words(path: Path) -> list[str]:
    """The text in a drawing."""
    return re.findall(r"<text[^>]*>([^<]*)<", path.read_text("utf-8"))


def test_pictures_are_small_and_shown() -> None:
    for path in PICTURES.iterdir():
        assert path.stat().st_size <= 100_000
        assert f"](lecture/{path.name})" in TEXT


def test_the_page_has_the_lectures_order() -> None:
    titles = re.findall(r"^## (.*)$", TEXT, flags=re.MULTILINE)
    order = (
        *("convolution layer", "padding", "max pooling", "strid", "fully connected", "im2col"),
        *("dilation", "hypercolumns", "grouping", "alexnet", "vgg", "inception", "networks"),
        "imagenet",
    )
    places = [next(k for k, title in enumerate(titles) if word in title.lower()) for word in order]
    assert places == sorted(places)
    assert len(blocks(TEXT)) > len(order)


def test_formulas_are_those_that_the_notation_prints() -> None:
    formulas = re.findall(r"^\$\$(.*)\$\$$", TEXT, flags=re.MULTILINE)
    assert formulas
    printed = {line for block in blocks(TEXT) for line in (block.shown or "").splitlines()}
    assert set(formulas) <= printed


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)\s#]+)\)", TEXT) if "://" not in link]
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
