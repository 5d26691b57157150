"""Contents by styles: rows in order, keys, names that need quoting, and styles that are bad."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fc7.engine.data import open_source, read_rows
from fc7.engine.data.pairs import PairsSource, names_in, pairs_of
from fc7.engine.errors import BadImage, SourceError


def fill(folder: Path, names: list[str]) -> Path:
    """Write an image of one colour for each name, another for each."""
    for place, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + place, 3), (10 * place + len(folder.name), 0, 0)).save(file)
    return folder


@pytest.fixture
def contents(tmp_path: Path) -> Path:
    return fill(tmp_path / "con|tents 50%", ["a.png", "cats/b.png", "dogs/c.png"])


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    return fill(tmp_path / "styles", ["x|y.png", "z+.png"])


def test_rows_are_contents_by_styles(contents: Path, styles: Path) -> None:
    source = pairs_of(contents, [styles, styles / "z+.png"])
    names = ["x|y.png", "z+.png (2)", "z+.png (3)"]  # of two by one name, the number too
    keys = [f"{one}|{name}" for one in ("a.png", "cats/b.png", "dogs/c.png") for name in names]
    assert len(source) == 9
    assert source.rows()["key"].to_pylist() == keys
    assert source.rows()["label"].to_pylist() == [None] * 3 + [0] * 3 + [1] * 3
    assert source.label_names == ("cats", "dogs")
    for start, stop in ((0, 9), (2, 7), (4, 5), (8, None), (5, 5), (7, 3), (-2, None)):
        assert source.rows(start, stop)["key"].to_pylist() == keys[start:stop]
    plain, own = open_source(contents), open_source(styles)
    for row in range(9):
        assert source.key(row) == keys[row]
        assert torch.equal(source.decode(source.read(row)), plain.decode(plain.read(row // 3)))
        (style,) = source.styles_of(row)
        expected = own.decode(own.read(min(row % 3, 1)))
        assert torch.equal(source.style(style), expected)
    for call in (source.styles_of, source.read, source.style, source.key):
        with pytest.raises(IndexError):
            call(9)


def test_a_spec_opens_again(contents: Path, styles: Path) -> None:
    for together in (False, True):
        source = pairs_of(contents, [styles, styles / "x|y.png"], together)
        again = open_source(source.spec)
        assert isinstance(again, PairsSource)
        assert again.together is together
        assert again.spec == source.spec
        assert again.digest() == source.digest()
        assert again.rows() == source.rows()
        found = names_in(source.spec)
        assert found == (str(contents), [str(styles), str(styles / "x|y.png")], together)


def test_styles_stand_together(contents: Path, styles: Path) -> None:
    source = pairs_of(contents, [styles], together=True)
    assert len(source) == 3
    assert source.key(1) == "cats/b.png|x|y.png+z+.png"
    assert list(source.styles_of(2)) == [0, 1]
    assert source.digest() != pairs_of(contents, [styles]).digest()
    with pytest.raises(SourceError, match="64 at most"):
        pairs_of(contents, ["shapes:65:0"], together=True)


def test_the_digest_knows_styles(contents: Path, styles: Path) -> None:
    before = pairs_of(contents, [styles]).digest()
    assert before == pairs_of(contents, [styles]).digest()
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(styles / "z+.png")  # the name stays
    assert pairs_of(contents, [styles]).digest() != before


def test_a_bad_style_makes_its_rows_bad_and_no_others(contents: Path, styles: Path) -> None:
    (styles / "y.png").write_text("no image")
    (contents / "cats" / "b.png").write_bytes(b"")
    source = pairs_of(contents, [styles])
    rows = list(read_rows(source, range(9), None))
    # Styles in code-point order: x|y, y (bad), z+; the second content is empty.
    assert [row.bad is None for row in rows] == [True, False, True, *[False] * 3, True, False, True]
    assert rows[1].bad is not None
    assert rows[1].bad.status == "not-an-image"
    assert str(rows[1].bad).startswith("style y.png: ")
    assert rows[3].bad is not None
    assert rows[3].bad.status == "empty"
    with pytest.raises(BadImage, match=r"style y\.png"):
        source.style(1)


def test_what_cannot_be_paired_is_named(contents: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(SourceError, match=r"missing\.png: missing"):
        pairs_of(contents, [tmp_path / "missing.png"])
    with pytest.raises(SourceError, match=r"bad\.png: not-an-image"):
        pairs_of(contents, [tmp_path / "bad.png"])
    with pytest.raises(SourceError, match="no style"):
        pairs_of(contents, [])
    for spec in ("pairs:", "pairs:a", "pairs:a|", "mixed:|a", "pairs:a||b"):
        with pytest.raises(SourceError, match="write for example"):
            open_source(spec)
