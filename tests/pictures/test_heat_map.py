"""Heat maps as files: a picture that can be opened, a page that says every number."""

import dataclasses
import html.parser
import struct
from pathlib import Path

import matplotlib.axes
import numpy as np
import pytest

from alens.errors import RequestError
from alens.lens import marks
from alens.pictures import heat_map, png
from alens.pictures.heat_map import HeatMap

MAP = HeatMap(
    title="KL <of> heads",
    values=np.array([[0.0, 1.25], [-2.5, np.nan]]),
    rows=["layer 0", "layer 1"],
    columns=["0", "1"],
    row_title="layer",
    column_title="head",
    colour_title="KL, nats",
    centre=0.0,
    marks=np.array([[False, True], [False, False]]),
    mark_title="p < 0.05",
)


class Cells(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "td":
            self.inside = True
            self.found.append((dict(attrs).get("class") or "", ""))

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found[-1] = (self.found[-1][0], data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def test_a_png_is_a_picture(tmp_path: Path) -> None:
    heat_map.write(tmp_path / "map.png", MAP)
    content = (tmp_path / "map.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 300 and height > 200


def test_one_cell_has_room_for_a_long_title_and_label() -> None:
    one = dataclasses.replace(MAP, values=np.array([[1.0]]), rows=["0"], columns=["0"], marks=None)
    label = "divergence of the readings less that of noise, nats a row of text"
    drawn = (
        one,
        dataclasses.replace(one, title="Change of readings " * 6),
        dataclasses.replace(one, colour_title=label),
    )
    sizes = [struct.unpack(">II", heat_map.to_png(each)[16:24]) for each in drawn]
    (width, height), (titled, _), (_, labelled) = sizes
    assert width >= 700 and titled < 1.2 * width  # in several lines
    assert labelled > 1.2 * height  # not cut off


@pytest.mark.parametrize("most", [heat_map.MOST_VALUES_WRITTEN, 0])
def test_a_lens_that_says_nothing_has_its_sign_however_many_cells_there_are(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(heat_map, "MOST_VALUES_WRITTEN", most)
    nothing = dataclasses.replace(MAP, nothing=np.array([[False, True], [False, False]]))
    cells = Cells()
    cells.feed(heat_map.to_html(nothing))
    assert [text for _, text in cells.found if text.endswith("!")] == ["1.25!"]
    assert f"! says nothing: {marks.MEANING}." in heat_map.to_html(nothing)
    assert "says nothing" not in heat_map.to_html(dataclasses.replace(MAP, nothing=np.zeros((2, 2), bool)))
    written: list[str] = []
    plain = matplotlib.axes.Axes.text

    def text(self: object, x: float, y: float, said: str, **more: object) -> object:
        written.append(said)
        return plain(self, x, y, said, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(matplotlib.axes.Axes, "text", text)
    assert heat_map.to_png(nothing) != heat_map.to_png(MAP)
    assert [said for said in written if "!" in said] == (["1.25*!"] if most else ["!"])


def test_terms_in_a_title_are_no_formula() -> None:
    assert heat_map.to_png(dataclasses.replace(MAP, title="$, ^, $$: 5 prompts", rows=["$^$", "1"]))


def test_a_page_says_every_number_and_marks_cells(tmp_path: Path) -> None:
    heat_map.write(tmp_path / "map.html", MAP)
    text = (tmp_path / "map.html").read_text()
    cells = Cells()
    cells.feed(text)
    assert cells.found == [("", "0"), ("marked", "1.25"), ("", "-2.5"), ("", "")]
    assert (
        "KL &lt;of&gt; heads" in text
        and "p &lt; 0.05" in text
        and "http" not in text.replace("http-equiv", "")
    )


def test_colours_of_differences_are_centred() -> None:
    colours, norm = heat_map._colours(MAP)
    assert norm(0.0) == pytest.approx(0.5)
    assert colours(norm(-2.5))[2] > colours(norm(-2.5))[0]  # below the centre: blue


def test_colours_reach_as_far_on_the_side_with_the_larger_difference() -> None:
    for turned in (MAP, dataclasses.replace(MAP, values=-MAP.values)):
        _, norm = heat_map._colours(turned)
        assert (float(norm(-2.5)), float(norm(2.5))) == (0.0, 1.0)


def test_marks_are_in_the_picture() -> None:
    drawn = heat_map.to_png(MAP)
    assert drawn == heat_map.to_png(MAP) != heat_map.to_png(dataclasses.replace(MAP, marks=None))


@pytest.mark.parametrize("name", ["map.png", "map.html"])
def test_a_heat_map_takes_the_place_of_one_of_alens_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    heat_map.write(path, MAP)
    heat_map.write(path, dataclasses.replace(MAP, title="another"))
    path.write_bytes(b"mine")
    with pytest.raises(RequestError, match=f"{name} is there, and alens did not write it"):
        heat_map.check_path(path)
    assert path.read_bytes() == b"mine"


def test_where_no_figure_is_known_it_says_so() -> None:
    none = dataclasses.replace(MAP, values=np.full((2, 2), np.nan))
    assert "No figures." in heat_map.to_html(none) and "No figures." not in heat_map.to_html(MAP)
    blank = dataclasses.replace(none, title="", colour_title="", row_title="", column_title="", mark_title="")
    figure = png.figure(3.0, 3.0)
    heat_map._draw(figure, blank, 3.0)
    assert len(figure.axes) == 1  # no scale of colours
    assert [text.get_text() for text in figure.axes[0].texts] == ["no figures"]


def test_what_cannot_be_a_heat_map_is_told_first(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"map.svg: a heat map is written as .png or .html"):
        heat_map.check_path(tmp_path / "map.svg")
    with pytest.raises(RequestError, match="does not exist"):
        heat_map.check_path(tmp_path / "no" / "map.png")
