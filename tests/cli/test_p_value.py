import pytest

from alens.cli.p_value import shown


@pytest.mark.parametrize(
    ("p", "digits", "text"),
    [
        (0.04126, 4, "0.0413"),
        (1.0, 3, "1.000"),
        (0.001, 3, "0.001"),
        (0.00049, 3, "<0.001"),
        (1e-5, 4, "<0.0001"),
    ],
)
def test_no_p_is_shown_as_nothing(p: float, digits: int, text: str) -> None:
    assert shown(p, digits) == text
