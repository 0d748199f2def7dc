"""Draw the diagrams of the documents as SVG files, with names from the code.

usage: python scripts/diagrams.py [FOLDER]      default: docs

The files are SVG and not Mermaid, because every Git host shows SVG, and a page needs no script from
another host. A diagram has dark lines on its own light background. The site inverts the colours on
dark pages.
"""

import ast
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]  # the tests run this file by its path

from diagram_shapes import LINE, Arrow, Box, svg  # noqa: E402
from overview_diagram import overview  # noqa: E402

from bus.contracts.contract import Catalog, Job, contract, contract_of  # noqa: E402
from bus.messaging.handler import Middleware  # noqa: E402
from bus.messaging.topology.names import (  # noqa: E402
    DEAD,
    JOBS,
    REPLIES,
    REQUESTS,
    dead_letter_queue,
    job_queue,
    retry_return_exchange,
    retry_tier,
    unroutable_queue,
)
from bus.middleware.stacks import CLIENT, SERVER  # noqa: E402

PLACES = ("the caller", "the broker", "the service")


def layers() -> str:
    """Draw the packages by layer, each with the first sentence of its docstring.

    The layers are read from the import rules in pyproject.toml.
    """
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    rows: list[str] = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    parts: list[Box | Arrow] = []
    y = 20.0
    for row in rows:
        top = y
        for name in row.split(" | "):
            lines = wrapped(charter(name), 72)
            height = 14 + LINE * len(lines)
            parts += [
                Box(kind="note", x=20, y=y, w=130, h=height, lines=(name,)),
                Box(kind="note", x=150, y=y, w=580, h=height, lines=tuple(lines)),
            ]
            y += height
        parts.insert(0, Box(kind="ground", x=20, y=top, w=720, h=y - top))
        y += 8
    parts.append(Arrow(points=((760, 30), (760, y - 14))))
    parts.append(Box(kind="note", x=695, y=y - 4, w=130, h=LINE, lines=("imports",)))
    return svg(800, int(y + 26), "Layers of the package; imports point down only", parts)


def charter(name: str) -> str:
    """Return the first sentence of a package's docstring, without its name."""
    path = ROOT / "bus" / name
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(
        encoding="utf-8"
    )
    first = " ".join((ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].split())
    first = re.split(r"(?<=\.)\s", first)[0]
    head, colon, rest = first.partition(": ")
    is_title = bool(colon) and head.lower() in {name, f"the {name}", "`bus`", "the test kit"}
    sentence = (rest if is_title else first).removesuffix(".").replace("`", "")
    return sentence[:1].upper() + sentence[1:]


def wrapped(text: str, width: int) -> list[str]:
    """Break a text into lines of at most `width` characters."""
    return textwrap.wrap(text, width)


def names(stack: Iterable[Middleware]) -> list[str]:
    """Return the names of the policies in a stack, taken from the functions that created them."""
    return [
        layer.__qualname__.partition(".")[0].removeprefix("client_").removeprefix("server_")
        for layer in stack
    ]


def column(x: float, words: Sequence[str], high: float) -> list[Box]:
    """Return a column of steps. The column has the same height for any number of steps."""
    between = 290 / (len(words) - 1)
    return [
        Box(kind="step", x=x, y=60 + between * place, w=160, h=high, lines=(word,))
        for place, word in enumerate(words)
    ]


def ways(upper: Box, lower: Box) -> Iterator[tuple[tuple[tuple[float, float], ...], bool]]:
    """Yield an arrow from the upper to the lower box, and a dashed arrow back."""
    yield ((upper.x + 60, upper.y + upper.h), (upper.x + 60, lower.y)), False
    yield ((upper.x + 100, lower.y), (upper.x + 100, upper.y + upper.h)), True


def request() -> str:
    """Draw the path of a request to its handler, and of the reply back."""
    x, w, high = (20, 280, 520), 200, 38
    asks = column(
        x[0] + 20, ("bus.request(…)", *names(CLIENT), "policies of the service", "transport"), high
    )
    answers = column(
        x[2] + 20,
        ("the handler", "router", *reversed(names(SERVER)), "inbound stages", "transport"),
        high,
    )
    parts: list[Box | Arrow] = [
        *(
            Box(kind="ground", x=x[place] - 8, y=16, w=w + 16, h=400, lines=(who,), at_top=True)
            for place, who in enumerate(PLACES)
        ),
        *asks,
        *answers,
        *(
            Arrow(points=way, dashed=back)
            for upper, lower in pairwise(asks)
            for way, back in ways(upper, lower)
        ),
        *(
            Arrow(points=way[::-1], dashed=back)
            for upper, lower in pairwise(answers)
            for way, back in ways(upper, lower)
        ),
    ]
    ys = [60.0 + 58 * place for place in range(6)]
    middle = x[1] + 100
    parts += [
        Box(kind="exchange", x=x[1] + 20, y=ys[2], w=160, h=high, lines=(REQUESTS,)),
        Box(
            kind="queue",
            x=x[1] + 5,
            y=ys[3] + 14,
            w=190,
            h=high,
            lines=("library.requests.find.v1",),
        ),
        Box(kind="exchange", x=x[1] + 20, y=ys[0], w=160, h=high, lines=(REPLIES,)),
        Box(kind="queue", x=x[1] + 5, y=ys[1], w=190, h=high, lines=("reader.replies.…",)),
        Arrow(points=((middle, ys[2] + high), (middle, ys[3] + 14))),
        Arrow(
            points=(
                (x[0] + 180, ys[5] + 12),
                (250, ys[5] + 12),
                (250, ys[2] + 19),
                (x[1] + 20, ys[2] + 19),
            )
        ),
        Arrow(points=((middle, ys[3] + 14 + high), (middle, ys[5] + 12), (x[2] + 20, ys[5] + 12))),
        Arrow(
            points=(
                (x[2] + 20, ys[5] + 28),
                (490, ys[5] + 28),
                (490, ys[0] + 19),
                (x[1] + 180, ys[0] + 19),
            ),
            dashed=True,
        ),
        Arrow(points=((middle, ys[0] + high), (middle, ys[1])), dashed=True),
        Arrow(
            points=(
                (x[1] + 5, ys[1] + 19),
                (234, ys[1] + 19),
                (234, ys[5] + 28),
                (x[0] + 180, ys[5] + 28),
            ),
            dashed=True,
        ),
        Box(
            kind="note",
            x=20,
            y=426,
            w=700,
            h=LINE,
            lines=(
                "solid: the request; dashed: its reply, after which an idempotent request is acked",
            ),
        ),
    ]
    return svg(
        740,
        456,
        "The path of a request through both stacks and the broker, and the path of its reply",
        parts,
    )


@contract("library.scan", version=1, catalog=Catalog())
class Scan(Job[None]):
    """Job from which the diagram takes its names."""


def job() -> str:
    """Draw the queues of a job: work queue, retry tier and dead-letter queue."""
    declared = contract_of(Scan)
    work, tier, back = (
        job_queue(declared),
        retry_tier("library", "5s"),
        retry_return_exchange("library"),
    )
    dead, lost = dead_letter_queue(work), unroutable_queue("library")
    parts: list[Box | Arrow] = [
        Box(kind="process", x=20, y=30, w=130, h=54, lines=("the submitter", "bus.submit(…)")),
        Box(kind="exchange", x=210, y=34, w=130, h=46, lines=(JOBS,)),
        Box(kind="queue", x=400, y=34, w=200, h=46, lines=(work,)),
        Box(kind="process", x=400, y=150, w=179, h=58, lines=("a worker", "handler, then settle")),
        Box(kind="exchange", x=210, y=156, w=130, h=46, lines=(DEAD,)),
        Box(kind="queue", x=20, y=232, w=240, h=46, lines=(dead,)),
        Box(kind="exchange", x=300, y=290, w=160, h=46, lines=(tier,)),
        Box(kind="queue", x=520, y=290, w=190, h=46, lines=(f"{tier}",)),
        Box(kind="exchange", x=560, y=400, w=150, h=46, lines=(back,)),
        Box(kind="queue", x=240, y=400, w=240, h=46, lines=(lost,)),
        Arrow(points=((150, 57), (210, 57)), word="type", at=(180, 50)),
        Arrow(points=((340, 57), (400, 57)), word="", at=(0, 0)),
        Arrow(points=((490, 80), (490, 150)), word="delivery", at=(520, 112)),
        Arrow(points=((440, 150), (440, 80)), word="ack", at=(424, 122), dashed=True),
        Arrow(points=((400, 179), (340, 179)), word="dead letter", at=(370, 170)),
        Arrow(points=((210, 179), (120, 179), (120, 232)), word="", at=(0, 0)),
        Arrow(
            points=((440, 208), (440, 250), (380, 250), (380, 290)),
            word="attempt + 1",
            at=(338, 262),
        ),
        Arrow(points=((460, 313), (520, 313))),
        Arrow(points=((635, 336), (635, 400)), word="after 5 s,\nby the broker", at=(680, 362)),
        Arrow(
            points=((710, 423), (728, 423), (728, 57), (600, 57)),
            word="by the work\nqueue's name",
            at=(664, 180),
        ),
        Arrow(points=((560, 423), (480, 423)), word="queue gone", at=(520, 415), dashed=True),
        Arrow(
            points=((400, 66), (365, 66), (365, 110), (275, 110), (275, 156)),
            word="delivered 100 times",
            at=(300, 102),
            dashed=True,
        ),
    ]
    return svg(740, 470, "The queues of a job: work, retry tier, return path, dead letters", parts)


DIAGRAMS = {
    "images/overview.svg": overview,
    "explanation/layers.svg": layers,
    "explanation/request.svg": request,
    "explanation/job.svg": job,
}


def main(folder: Path) -> None:
    """Write all diagrams."""
    for name, draw in DIAGRAMS.items():
        (folder / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "docs")
