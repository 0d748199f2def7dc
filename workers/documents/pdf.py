"""PDF of a note, written with ReportLab in the font Liberation Sans.

The font is embedded, so the PDF looks the same everywhere.
"""

from functools import cache, partial
from io import BytesIO
from typing import Any

from reportlab.lib.pagesizes import A4, LETTER
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    CondPageBreak,
    Flowable,
    Frame,
    HRFlowable,
    PageTemplate,
    Paragraph,
    Table,
)
from reportlab.platypus.paraparser import ParaFrag

from workers.documents.font import shown
from workers.documents.layout import Layout, SectionText
from workers.documents.lines import Line, Lines, wrapped
from workers.documents.pdf_styles import (
    ACCENT,
    ALERT,
    BOLD,
    GREY,
    INK,
    REGULAR,
    RULE,
    SMALL,
    register_fonts,
    styles,
)

__all__ = ["check_shown", "render_pdf"]

SIZES = {"a4": A4, "letter": LETTER}
SIDE, TOP, BOTTOM = 20 * mm, 24 * mm, 22 * mm
Commands = list[tuple[str, tuple[int, int], tuple[int, int], *tuple[Any, ...]]]
"""Type of the commands by which ReportLab styles a table."""
EMPTY_CELLS = ("FONTNAME", (0, 0), (-1, -1), REGULAR)
"""Command that sets the font of all cells. The file names the font even of an empty cell."""
MOST_INDENT = 24
"""Maximum number of spaces that are kept at the beginning of a line as an indentation."""


def render_pdf(layout: Layout) -> tuple[bytes, int]:
    """Return the content of the file and its number of pages.

    The same layout always gives the same bytes. Raise `InvalidArgument` if the font lacks the
    script of the text.
    """
    # Each page shows the total number of pages, so first place the text without drawing it.
    pages = _built(layout, total=None)[1]
    return _built(layout, total=pages)


def check_shown(text: str) -> None:
    """Raise `InvalidArgument` if the font lacks the script of the text."""
    _fit(text)


def _built(layout: Layout, *, total: int | None) -> tuple[bytes, int]:
    """Return the file and its number of pages. Without a `total`, the pages have no text."""
    register_fonts()
    file = BytesIO()
    width, height = SIZES[layout.page_size]
    document = BaseDocTemplate(
        file,
        pagesize=(width, height),
        title=layout.title,
        author=_fit(layout.letterhead.name),
        lang="en",
        invariant=1,  # no current date and no random id
        initialFontName=REGULAR,  # the default, Helvetica, would not be embedded
    )
    frame = Frame(
        SIDE,
        BOTTOM,
        width - 2 * SIDE,
        height - TOP - BOTTOM,
        leftPadding=0,
        rightPadding=0,
        topPadding=0,
        bottomPadding=0,
    )
    document.addPageTemplates(PageTemplate(frames=[frame], onPage=partial(_furnish, layout, total)))
    document.build(_story(layout, width - 2 * SIDE, counted=total is None))
    return file.getvalue(), document.page


def _furnish(layout: Layout, total: int | None, canvas: Canvas, _document: BaseDocTemplate) -> None:
    """Draw the header and the footer of the current page, if the total number is known."""
    if total is None:
        return
    width, height = SIZES[layout.page_size]
    right, page = width - SIDE, canvas.getPageNumber()
    canvas.saveState()
    canvas.setStrokeColor(RULE)
    canvas.setFillColor(INK)
    canvas.setFont(BOLD, SMALL)
    canvas.drawRightString(right, height - 14 * mm, layout.patient)
    room = right - SIDE - pdfmetrics.stringWidth(layout.patient, BOLD, SMALL) - 6 * mm
    canvas.setFillColor(GREY)
    canvas.setFont(REGULAR, SMALL)
    canvas.drawString(SIDE, height - 14 * mm, _cut(_fit(layout.running(first=page == 1)), room))
    canvas.line(SIDE, height - 16 * mm, right, height - 16 * mm)
    canvas.line(SIDE, 15 * mm, right, 15 * mm)
    canvas.drawRightString(right, 11 * mm, f"Page {page} of {total}")
    canvas.setFillColor(ALERT if layout.marker else GREY)
    canvas.drawString(SIDE, 11 * mm, _cut(layout.standing, right - SIDE - 36 * mm))
    canvas.restoreState()


def _cut(text: str, room: float) -> str:
    """Return the text, shortened with an ellipsis if it is wider than `room` points."""
    if pdfmetrics.stringWidth(text, REGULAR, SMALL) <= room:
        return text
    while text and pdfmetrics.stringWidth(f"{text}\u2026", REGULAR, SMALL) > room:
        text = text[:-1]
    return f"{text}\u2026" if text else ""


def _story(layout: Layout, width: float, *, counted: bool) -> list[Flowable]:
    story: list[Flowable] = [_text(layout.letterhead.name, "clinic")]
    if layout.letterhead.address:
        story.append(_text(layout.letterhead.address, "address"))
    story.append(
        HRFlowable(width="100%", thickness=1.2, color=ACCENT, spaceBefore=5, spaceAfter=10)
    )
    story.append(_text(layout.title, "title"))
    if layout.marker:
        story.append(_text(layout.marker, "marker"))
    story.append(_facts(layout, width))
    for section in layout.sections:
        story += _section(section, width, counted=counted)
    story.append(_signing(layout, width) if layout.marker else _text(layout.standing, "signed"))
    return story


def _facts(layout: Layout, width: float) -> Table:
    """Return a table of the facts. A cell has a name above its value, and a row has two cells."""
    cells = [[_text(name, "label"), _text(value, "value")] for name, value in layout.facts]
    rows = [[cells[i], cells[i + 1] if i + 1 < len(cells) else ""] for i in range(0, len(cells), 2)]
    box: Commands = [
        ("BOX", (0, 0), (-1, -1), 0.5, RULE),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 5),
    ]
    return Table(
        rows,
        colWidths=[width / 2, width / 2],
        style=[EMPTY_CELLS, *box],
        spaceBefore=4,
        spaceAfter=6,
    )


def _section(section: SectionText, width: float, *, counted: bool) -> list[Flowable]:
    # Begin a new page if the current page has no room for the heading and two lines of its text.
    room = (28 if section.remark else 22) * mm
    flow: list[Flowable] = [CondPageBreak(room), _text(section.heading, "heading")]
    if section.remark:
        flow.append(_text(section.remark, "caution" if section.paragraphs else "remark"))
    look = styles()["body"]
    lines: list[Line] = []
    for paragraph in section.paragraphs:
        for text in paragraph:
            lines += (Line(part) for part in wrapped(_indented(text), look, width))
        lines[-1] = Line(lines[-1].text, gap=look.spaceAfter)
    if lines:
        flow.append(Lines(lines, look, counted=counted))
    return flow


def _signing(layout: Layout, width: float) -> Table:
    """Return a table with lines for a signature on paper."""
    row = [_text(f"Signature of {layout.signer}", "label"), "", _text("Date and time", "label")]
    line: Commands = [("LINEABOVE", (column, 0), (column, 0), 0.7, INK) for column in (0, 2)]
    line.append(("LEFTPADDING", (0, 0), (-1, -1), 0))
    return Table(
        [row],
        colWidths=[width * 0.58, width * 0.06, width * 0.36],
        style=[EMPTY_CELLS, *line],
        spaceBefore=20 * mm,
    )


def _text(line: str, style: str) -> Paragraph:
    """Return a paragraph with this line of text, which is wrapped if it is too long.

    ReportLab's markup parser is bypassed, because the text of a clinic is not markup.
    """
    return Paragraph("", styles()[style], frags=[_look(style).clone(text=_indented(line))])


def _indented(line: str) -> str:
    """Return the line in characters of the font, with its indentation in no-break spaces."""
    text = _fit(line)
    inner = text.lstrip(" ")
    return "\u00a0" * min(len(text) - len(inner), MOST_INDENT) + inner


@cache
def _look(style: str) -> ParaFrag:
    """Return a text fragment that has the font and colour of a style."""
    look: ParaFrag = Paragraph("x", styles()[style]).frags[0]
    return look


def _fit(text: str) -> str:
    """Return the text with characters that the font can show."""
    return shown(text, register_fonts())
