"""Styles of a PDF: its fonts, colours and paragraph styles."""

from functools import cache
from pathlib import Path

from reportlab.lib.colors import HexColor
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

__all__ = [
    "ACCENT",
    "ALERT",
    "BOLD",
    "GREY",
    "INK",
    "REGULAR",
    "RULE",
    "SMALL",
    "register_fonts",
    "styles",
]

FONTS = Path(__file__).parent / "fonts"
REGULAR, BOLD = "LiberationSans", "LiberationSans-Bold"
INK, GREY, RULE, ACCENT, ALERT = (
    HexColor(color) for color in ("#1a1a1a", "#5a6470", "#c3cad3", "#1f3a5f", "#9a3412")
)
SMALL = 8.5
"""Font size of small text in points. It is the smallest size that is easy to read on paper."""


@cache
def register_fonts() -> frozenset[int]:
    """Register both fonts, and return the code points that both can show.

    The fonts are registered only once in a process.
    """
    regular, bold = (
        TTFont(REGULAR, FONTS / "LiberationSans-Regular.ttf"),
        TTFont(BOLD, FONTS / "LiberationSans-Bold.ttf"),
    )
    pdfmetrics.registerFont(regular)
    pdfmetrics.registerFont(bold)
    return frozenset(regular.face.charToGlyph) & frozenset(bold.face.charToGlyph)


@cache
def styles() -> dict[str, ParagraphStyle]:
    """Return the styles by name. The fonts must be registered first."""
    text = ParagraphStyle(
        "text",
        fontName=REGULAR,
        fontSize=10.5,
        leading=14.5,
        textColor=INK,
        allowWidows=0,
        allowOrphans=0,
    )
    bold = ParagraphStyle("bold", text, fontName=BOLD)
    small = ParagraphStyle("small", text, fontSize=SMALL, leading=11, textColor=GREY)
    boxed = ParagraphStyle(
        "boxed",
        bold,
        borderColor=ALERT,
        borderWidth=0.7,
        borderPadding=5,
        leftIndent=6,
        rightIndent=6,
    )
    named = [
        ParagraphStyle("clinic", bold, fontSize=17, leading=21, textColor=ACCENT),
        ParagraphStyle("address", small, fontSize=9, leading=12),
        ParagraphStyle("title", bold, fontSize=15, leading=20, spaceAfter=8),
        ParagraphStyle(
            "marker", boxed, fontSize=9.5, leading=12, textColor=ALERT, spaceBefore=8, spaceAfter=14
        ),
        ParagraphStyle("label", small),
        ParagraphStyle("value", text, fontSize=10, leading=13),
        ParagraphStyle(
            "heading",
            bold,
            fontSize=12,
            leading=16,
            textColor=ACCENT,
            spaceBefore=8,
            spaceAfter=3,
        ),
        ParagraphStyle("remark", small, fontSize=9.5, leading=13, spaceAfter=4),
        ParagraphStyle(
            "caution",
            small,
            fontSize=9.5,
            leading=13,
            spaceAfter=4,
            textColor=ALERT,
        ),
        ParagraphStyle("body", text, spaceAfter=6),
        ParagraphStyle("signed", bold, spaceBefore=16),
    ]
    return {style.name: style for style in named}
