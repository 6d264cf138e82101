"""Findings into a page of the documents, each between its two markers: numbers are never typed by hand."""

import re
from pathlib import Path
from typing import Final

from serving.errors import ServingError
from serving.model.suites.drawing import draw
from serving.model.suites.rows import Finding

FIGURES: Final = "figures"


def write(page: Path, finding: Finding, command: str) -> list[Path]:
    """Replace what stands between the markers of a suite, and draw its figures beside the page. `command` is how it was
    measured. Returns the files written; raises ServingError when the page has no place for the suite."""
    text = page.read_text("utf-8")
    place = re.compile(rf"(?<=<!-- evaluate {finding.suite} -->\n).*?(?=<!-- end {finding.suite} -->)", re.DOTALL)
    if not place.search(text):
        raise ServingError(
            f"{page} has no place for the suite: expected a line <!-- evaluate {finding.suite} --> and after it a line "
            f"<!-- end {finding.suite} -->"
        )
    written = [page]
    shown = f"Measured by `{command}`.\n\n{finding.markdown()}\n"
    for figure in finding.figures:
        file = page.parent / FIGURES / f"{figure.name}.svg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(draw(figure))
        written.append(file)
        shown += f"\n![{figure.told}]({FIGURES}/{file.name})\n"
    page.write_text(place.sub(lambda _: f"\n{shown}\n", text), "utf-8")
    return written
