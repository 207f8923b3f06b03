"""p-values in tables: none is 0, and none is shown as 0."""


def shown(p: float, digits: int) -> str:
    """To so many digits after the point, or `<0.001` where they would all be 0."""
    text = f"{p:.{digits}f}"
    return f"<{10.0**-digits:.{digits}f}" if float(text) == 0.0 else text
