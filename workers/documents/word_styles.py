"""Styles of a DOCX. Text that a user adds to the document later can use the same styles."""

from collections.abc import Sequence
from dataclasses import dataclass

from docx.document import Document
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.oxml.xmlchemy import BaseOxmlElement
from docx.shared import Pt, RGBColor
from docx.styles.style import ParagraphStyle
from docx.table import Table
from docx.text.paragraph import Paragraph

__all__ = ["ACCENT", "ALERT", "GREY", "INK", "RULE", "draw_border", "draw_box", "set_styles"]

FONT = "Arial"
"""Font that nearly every machine has.

Its characters are as wide as in Liberation Sans, the font of the PDF. Therefore lines break at the
same words in both formats.
"""
INK, GREY, ACCENT, ALERT = "1A1A1A", "5A6470", "1F3A5F", "9A3412"
RULE = "C3CAD3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Values of one style; sizes and spaces are in points."""

    size: float
    color: str = INK
    bold: bool = False
    before: float = 0
    after: float = 0
    line: float = 1.0
    """Distance between lines, as a multiple of the font's default distance."""
    keep_with_next: bool = False
    indent: float = 0
    """Indent from the left and the right margin."""


LOOKS = {
    "Normal": Look(size=10.5, after=6, line=1.15),
    "Header": Look(size=8.5, color=GREY),
    "Footer": Look(size=8.5, color=GREY),
    "Clinic": Look(size=17, color=ACCENT, bold=True),
    "Address": Look(size=9, color=GREY, after=5),
    "Title": Look(size=15, bold=True, before=8, after=6),
    "Marker": Look(size=9.5, color=ALERT, bold=True, before=4, after=10, indent=6),
    "Fact": Look(size=10, before=2, after=3),
    "Heading 1": Look(size=12, color=ACCENT, bold=True, before=12, after=3, keep_with_next=True),
    "Remark": Look(size=9.5, color=GREY, after=4),
    "Caution": Look(size=9.5, color=ALERT, after=4, keep_with_next=True),
    "Signature Line": Look(size=8.5, color=GREY),
    "Signed": Look(size=10.5, bold=True, before=16),
}


def set_styles(document: Document) -> None:
    """Set each style of the document. Add the styles that the document does not have."""
    known = {style.name for style in document.styles}
    for name, look in LOOKS.items():
        style = (
            document.styles[name]
            if name in known
            else document.styles.add_style(name, WD_STYLE_TYPE.PARAGRAPH)
        )
        if not isinstance(style, ParagraphStyle):
            problem = f"{name} is not a paragraph style in python-docx's template"
            raise TypeError(f"{problem}. Use another name.")
        _dress(style, look)


def _dress(style: ParagraphStyle, look: Look) -> None:
    _undress(style)
    style.font.size, style.font.bold = Pt(look.size), look.bold
    style.font.color.rgb = RGBColor.from_string(look.color)
    _set_font(style)
    form = style.paragraph_format
    form.space_before, form.space_after, form.line_spacing = (
        Pt(look.before),
        Pt(look.after),
        look.line,
    )
    form.keep_with_next, form.widow_control = look.keep_with_next, True
    form.left_indent = form.right_indent = Pt(look.indent)


def _undress(style: ParagraphStyle) -> None:
    """Remove the values that python-docx's template sets for a style.

    The font of the template's theme would override the font of this module, and its tab stops would
    move the text of headers and footers.
    """
    for path in ("w:rPr", "w:pPr/w:pBdr", "w:pPr/w:tabs", "w:pPr/w:contextualSpacing"):
        for found in style.element.xpath(path):
            found.getparent().remove(found)


def _set_font(style: ParagraphStyle) -> None:
    """Set the font for every script."""
    fonts = style.element.get_or_add_rPr().get_or_add_rFonts()
    for script in ("ascii", "hAnsi", "cs", "eastAsia"):
        fonts.set(qn(f"w:{script}"), FONT)


def draw_border(
    paragraph: Paragraph, *sides: str, color: str = RULE, width: float = 0.5, space: int = 4
) -> None:
    """Draw lines on these sides (`top`, `left`, `bottom`, `right`) of a paragraph.

    `width` and `space`, the distance to the text, are in points.
    """
    # python-docx cannot draw borders, and its XML is only accessible by a private attribute.
    properties = paragraph._p.get_or_add_pPr()  # noqa: SLF001 - see above
    properties.insert_element_before(
        _lines("w:pBdr", sides, color=color, width=width, space=space), *AFTER_BORDERS
    )


def draw_box(table: Table) -> None:
    """Draw a thin line around a table.

    The table is indented by the margin of its cells, because the line would extend beyond the text
    by this margin.
    """
    properties = table._tbl.tblPr  # noqa: SLF001 - as above
    borders = _lines("w:tblBorders", SIDES, color=RULE, width=0.5, space=0)
    following = ("w:shd", "w:tblLayout", "w:tblCellMar", "w:tblLook")
    indent = OxmlElement("w:tblInd")
    indent.set(qn("w:w"), str(CELL_MARGIN))
    indent.set(qn("w:type"), "dxa")
    properties.insert_element_before(indent, *following)
    properties.insert_element_before(borders, *following)


def _lines(
    kind: str, sides: Sequence[str], *, color: str, width: float, space: int
) -> BaseOxmlElement:
    borders = OxmlElement(kind)
    for side in SIDES:
        if side in sides:
            line = OxmlElement(f"w:{side}")
            for name, value in {
                "val": "single",
                "sz": str(round(width * 8)),
                "space": str(space),
                "color": color,
            }.items():
                line.set(qn(f"w:{name}"), value)
            borders.append(line)
    return borders


CELL_MARGIN = 108
"""Margin of the template's cells, in twentieths of a point."""
SIDES = ("top", "left", "bottom", "right")
"""Sides of a border, in the order that the XML schema requires."""
AFTER_BORDERS = ("w:shd", "w:tabs", "w:bidi", "w:spacing", "w:ind", "w:jc", "w:rPr")
"""Elements that can follow `pBdr` in a paragraph's properties (ECMA-376 part 1, 17.3.1.26).

Word refuses a file with another order of these elements.
"""
