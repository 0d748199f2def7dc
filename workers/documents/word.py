"""DOCX of a note, written with python-docx. It is the format for users that edit the document."""

import unicodedata
from datetime import UTC
from io import BytesIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from docx import Document
from docx.document import Document as WordDocument
from docx.enum.text import WD_TAB_ALIGNMENT
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.section import Section
from docx.shared import Length, Mm, Pt, RGBColor
from docx.table import Table
from docx.text.paragraph import Paragraph

from workers.documents.layout import Layout, SectionText
from workers.documents.word_styles import (
    ACCENT,
    ALERT,
    GREY,
    INK,
    draw_border,
    draw_box,
    set_styles,
)

__all__ = ["render_docx"]

SIZES = {"a4": (Mm(210), Mm(297)), "letter": (Mm(215.9), Mm(279.4))}
SIDE = Mm(20)
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Time of all entries in the file, the earliest that a ZIP file can hold.

python-docx writes the current time, so two runs would not write the same bytes.
"""


def render_docx(layout: Layout) -> bytes:
    """Return the content of the file. The same layout always gives the same bytes."""
    document = Document()
    _describe(document, layout)
    set_styles(document)
    page = document.sections[0]
    width = _set_page(page, layout)
    _furnish(page, layout, width)
    _open(document, layout)
    _facts(document, layout, width)
    for section in layout.sections:
        _section(document, section)
    _signing(document, layout, width)
    file = BytesIO()
    document.save(file)
    return _undated(file.getvalue())


def _describe(document: WordDocument, layout: Layout) -> None:
    """Set the metadata that a file browser shows. It contains no data of the patient."""
    about = document.core_properties
    about.title, about.author, about.last_modified_by, about.comments = (
        layout.title,
        layout.letterhead.name,
        layout.letterhead.name,
        "",
    )
    about.created = about.modified = layout.created.astimezone(UTC).replace(
        tzinfo=None, microsecond=0
    )


def _set_page(page: Section, layout: Layout) -> Length:
    """Set the page's size and margins, and return the width of its text."""
    page.page_width, page.page_height = SIZES[layout.page_size]
    page.left_margin = page.right_margin = SIDE
    page.top_margin, page.bottom_margin = Mm(24), Mm(22)
    page.header_distance, page.footer_distance = Mm(10), Mm(9)
    return Length(SIZES[layout.page_size][0] - 2 * SIDE)


def _furnish(page: Section, layout: Layout, width: Length) -> None:
    """Add the headers and footers of the first page and of the other pages."""
    page.different_first_page_header_footer = True
    for header, first in ((page.first_page_header, True), (page.header, False)):
        line = _two_sided(header.paragraphs[0], layout.running(first=first), width)
        patient = line.add_run(layout.patient.replace(" ", "\u00a0"))  # kept on one line
        patient.bold, patient.font.color.rgb = True, RGBColor.from_string(INK)
        draw_border(line, "bottom")
    for footer in (page.first_page_footer, page.footer):
        line = _two_sided(footer.paragraphs[0], layout.standing, width)
        if layout.marker:
            line.runs[0].font.color.rgb = RGBColor.from_string(ALERT)
        line.add_run("Page ")
        _field(line, "PAGE")
        line.add_run(" of ")
        _field(line, "NUMPAGES")
        draw_border(line, "top")


def _two_sided(line: Paragraph, left: str, width: Length) -> Paragraph:
    """Add text to a line, and return the line. The next text of the line is at the right margin."""
    line.paragraph_format.tab_stops.add_tab_stop(width, WD_TAB_ALIGNMENT.RIGHT)
    line.add_run(left)
    line.add_run("\t")
    return line


def _field(line: Paragraph, instruction: str) -> None:
    """Add a field that Word computes, such as PAGE. The field shows 1 until Word computes it."""
    field = OxmlElement("w:fldSimple")
    field.set(qn("w:instr"), instruction)
    run = line.add_run("1")
    field.append(run._r)  # noqa: SLF001 - python-docx has no fields, and no public access to its XML
    line._p.append(field)  # noqa: SLF001 - as above


def _open(document: WordDocument, layout: Layout) -> None:
    """Add the letterhead, the title, and the warning of an unsigned note."""
    last = document.add_paragraph(layout.letterhead.name, "Clinic")
    if layout.letterhead.address:
        last = document.add_paragraph(layout.letterhead.address, "Address")
    draw_border(last, "bottom", color=ACCENT, width=1.25)
    document.add_paragraph(layout.title, "Title")
    if layout.marker:
        draw_border(
            document.add_paragraph(layout.marker, "Marker"),
            "top",
            "left",
            "bottom",
            "right",
            color=ALERT,
            width=0.75,
        )


def _facts(document: WordDocument, layout: Layout, width: Length) -> None:
    """Add a table of the facts. A cell has a name above its value, and a row has two cells."""
    table = _table(document, (len(layout.facts) + 1) // 2, width // 2, width // 2)
    draw_box(table)
    cells = [cell for row in table.rows for cell in row.cells]
    for cell, (name, value) in zip(
        cells, layout.facts, strict=False
    ):  # an odd number leaves the last cell empty
        line = cell.paragraphs[0]
        line.style = "Fact"
        label = line.add_run(name)
        label.font.size, label.font.color.rgb = Pt(8.5), RGBColor.from_string(GREY)
        label.add_break()
        line.add_run(value)


def _section(document: WordDocument, section: SectionText) -> None:
    document.add_paragraph(section.heading, "Heading 1")
    if section.remark:
        document.add_paragraph(section.remark, "Caution" if section.paragraphs else "Remark")
    for lines in section.paragraphs:
        text = "\n".join(lines)
        paragraph = _appended(document, text)
        if _right_to_left(text):
            _turn(paragraph)


def _appended(document: WordDocument, text: str) -> Paragraph:
    """Add a paragraph at the end of the document, and return it.

    python-docx searches the whole document for the end. With 66,000 paragraphs that took 128 s.
    """
    paragraph = Paragraph(OxmlElement("w:p"), document)
    document.element.body[-1].addprevious(paragraph._p)  # noqa: SLF001 - see `_turn`
    paragraph.add_run(text)
    return paragraph


def _right_to_left(text: str) -> bool:
    """Return True if the first character that has a direction is right-to-left.

    This is rule P2 of Unicode's bidirectional algorithm.
    """
    strong = (
        direction
        for direction in map(unicodedata.bidirectional, text)
        if direction in {"L", "R", "AL"}
    )
    return next(strong, "L") != "L"


def _turn(paragraph: Paragraph) -> None:
    """Set the direction of a paragraph to right-to-left."""
    # python-docx cannot set the direction, and its XML is only accessible by a private attribute.
    properties = paragraph._p.get_or_add_pPr()  # noqa: SLF001 - see above
    properties.insert_element_before(OxmlElement("w:bidi"), "w:spacing", "w:ind", "w:jc", "w:rPr")


def _signing(document: WordDocument, layout: Layout, width: Length) -> None:
    """Add the signature of a signed note, or lines for a signature on paper."""
    if layout.marker is None:
        document.add_paragraph(layout.standing, "Signed")
        return
    table = _table(document, 1, *(int(width * share) for share in (0.58, 0.06, 0.36)))
    texts = (f"Signature of {layout.signer}", "", "Date and time")
    for cell, text in zip(table.rows[0].cells, texts, strict=True):
        line = cell.paragraphs[0]
        line.text, line.style = text, "Signature Line"
        line.paragraph_format.space_before = Mm(18)
        if text:
            draw_border(line, "top", color=INK, width=0.75)


def _table(document: WordDocument, rows: int, *widths: int) -> Table:
    """Return a new table with columns of these widths.

    The widths are set for both cells and columns. Word reads the widths of the cells, and other
    programs read the widths of the columns.
    """
    table: Table = document.add_table(rows, len(widths))
    table.autofit = False
    for column, width in zip(table.columns, widths, strict=True):
        column.width = Length(width)
        for cell in column.cells:
            cell.width = Length(width)
    return table


def _undated(file: bytes) -> bytes:
    """Return the same file with the time `EARLIEST` for all its entries."""
    result = BytesIO()
    with ZipFile(BytesIO(file)) as source, ZipFile(result, "w") as target:
        for name in source.namelist():
            entry = ZipInfo(name, EARLIEST)
            entry.compress_type = ZIP_DEFLATED
            target.writestr(entry, source.read(name))
    return result.getvalue()
