"""Heat maps as files: a picture that can be opened, a page that holds every number."""

import dataclasses
import html.parser
import struct
from pathlib import Path

import matplotlib.axes
import pytest

from alens.errors import RequestError
from alens.lens import marks
from alens.pictures import heat_map, png
from alens.pictures.head_grid import HeadGrid

GRID = HeadGrid(
    title="KL <of> heads",
    values={(0, 0): 0.0, (0, 1): 1.25, (1, 0): -2.5, (1, 1): None},
    number_title="KL, nats",
    centre=0.0,
    marked={(0, 1)},
    mark_title="p < 0.05",
)


class Cells(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[str, str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "td":
            self.inside = True
            self.texts.append((dict(attrs).get("class") or "", ""))

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] = (self.texts[-1][0], data)

    def handle_endtag(self, tag: str) -> None:
        self.inside = False


def test_a_png_is_a_picture(tmp_path: Path) -> None:
    heat_map.write(tmp_path / "map.png", GRID)
    content = (tmp_path / "map.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width > 300 and height > 200


def test_one_cell_has_room_for_a_long_title_and_label() -> None:
    one = dataclasses.replace(GRID, values={(0, 0): 1.0}, marked=())
    label = "divergence of the readings less that of noise, nats a row of text"
    drawn = (
        one,
        dataclasses.replace(one, title="Change of readings " * 6),
        dataclasses.replace(one, number_title=label),
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
    nothing = dataclasses.replace(GRID, silent={(0, 1)})
    cells = Cells()
    cells.feed(heat_map.to_html(nothing))
    assert [text for _, text in cells.texts if text.endswith("!")] == ["1.25!"]
    assert f"! says nothing: {marks.MEANING}." in heat_map.to_html(nothing)
    assert "says nothing" not in heat_map.to_html(GRID)
    written: list[str] = []
    plain = matplotlib.axes.Axes.text

    def text(self: object, x: float, y: float, said: str, **more: object) -> object:
        written.append(said)
        return plain(self, x, y, said, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(matplotlib.axes.Axes, "text", text)
    assert heat_map.to_png(nothing) != heat_map.to_png(GRID)
    assert [said for said in written if "!" in said] == (["1.25*!"] if most else ["!"])


def test_terms_in_a_title_are_no_formula() -> None:
    assert heat_map.to_png(dataclasses.replace(GRID, title="$, ^, $$: 5 prompts", names={0: "$^$"}))


def test_a_page_says_every_number_and_marks_cells(tmp_path: Path) -> None:
    heat_map.write(tmp_path / "map.html", GRID)
    text = (tmp_path / "map.html").read_text()
    cells = Cells()
    cells.feed(text)
    assert cells.texts == [("", "0"), ("marked", "1.25"), ("", "-2.5"), ("", "")]
    assert (
        "KL &lt;of&gt; heads" in text
        and "p &lt; 0.05" in text
        and "http" not in text.replace("http-equiv", "")
    )


def test_colours_of_differences_are_centred() -> None:
    colours, norm = heat_map._colours(GRID)
    assert norm(0.0) == pytest.approx(0.5)
    assert colours(norm(-2.5))[2] > colours(norm(-2.5))[0]  # below the centre: blue


def test_colours_reach_as_far_on_the_side_with_the_larger_difference() -> None:
    for turned in (
        GRID,
        dataclasses.replace(GRID, values={place: -(value or 0.0) for place, value in GRID.values.items()}),
    ):
        _, norm = heat_map._colours(turned)
        assert (float(norm(-2.5)), float(norm(2.5))) == (0.0, 1.0)


def test_marks_are_in_the_picture() -> None:
    drawn = heat_map.to_png(GRID)
    assert drawn == heat_map.to_png(GRID) != heat_map.to_png(dataclasses.replace(GRID, marked=()))


@pytest.mark.parametrize("name", ["map.png", "map.html"])
def test_a_heat_map_takes_the_place_of_one_of_alens_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    heat_map.write(path, GRID)
    heat_map.write(path, dataclasses.replace(GRID, title="another"))
    path.write_bytes(b"mine")
    with pytest.raises(RequestError, match=f"{name} is there, and alens did not write it"):
        heat_map.check_path(path)
    assert path.read_bytes() == b"mine"


def test_where_no_figure_is_known_it_says_so() -> None:
    none = dataclasses.replace(GRID, values=dict.fromkeys(GRID.values))
    assert "No figures." in heat_map.to_html(none) and "No figures." not in heat_map.to_html(GRID)
    blank = dataclasses.replace(none, title="", number_title="", row_title="", column_title="", mark_title="")
    figure = png.figure(3.0, 3.0)
    heat_map._draw(figure, blank, 3.0)
    assert len(figure.axes) == 1  # no scale of colours
    assert [text.get_text() for text in figure.axes[0].texts] == ["no figures"]


def test_what_cannot_be_a_heat_map_is_told_first(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"map.svg: a heat map is written as .png or .html"):
        heat_map.check_path(tmp_path / "map.svg")
    with pytest.raises(RequestError, match="does not exist"):
        heat_map.check_path(tmp_path / "no" / "map.png")


def test_an_odd_number_has_a_mark_and_leaves_the_others_their_colours() -> None:
    values = {(row, column): 3.0 + 0.01 * (9 * row + column) for row in range(6) for column in range(9)}
    odd = dataclasses.replace(GRID, values={**values, (2, 2): 24.87}, centre=None, marked={(2, 2)})
    _, norm = heat_map._colours(odd)
    assert norm(3.0) == 0.0 and norm(24.87) == 1.0 and 0.1 < norm(3.2) < 0.9
    cells = Cells()
    cells.feed(heat_map.to_html(odd))
    assert [text for kind, text in cells.texts if "beyond" in kind] == ["24.9"]
    assert "Marked corner: beyond the colours (3 to 24.9)." in heat_map.to_html(odd)
    assert "Marked corner" not in heat_map.to_html(dataclasses.replace(odd, values=values))
    figure = png.figure(9.0, 6.0)
    heat_map._draw(figure, odd, 9.0)
    assert len(figure.axes[0].patches) == 1
