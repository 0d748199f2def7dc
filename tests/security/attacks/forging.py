"""Building blocks of attacks: a genuine message with one change."""

import json
from collections.abc import Callable
from typing import Any

from bus.messaging.envelope import Envelope
from bus.transports.wire_format import decode, encode
from tests.security.world import World, token_of, with_token
from tests.security.yard import NOW, base64, bytes_of, jws, parts_of

Attack = Callable[[World], Envelope]


def request(**header: Any) -> Attack:
    return lambda world: world.forged(world.request(), header=header)


def claims(kind: str = "job", **claims: Any) -> Attack:
    return lambda world: world.forged(getattr(world, kind)(), claims=claims)


def headed(header: str, kind: str = "request") -> Attack:
    """Return an attack with this header as text, which no library would write."""

    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        return with_token(
            envelope, jws(header, parts_of(token_of(envelope))[1], world.key(envelope.source))
        )

    return attack


def payload(text: str, kind: str = "job") -> Attack:
    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        return with_token(
            envelope, jws(parts_of(token_of(envelope))[0], text, world.key(envelope.source))
        )

    return attack


def token(change: Callable[[str], str], kind: str = "request") -> Attack:
    """Return an attack that changes the text of the token."""

    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        return with_token(envelope, change(token_of(envelope)))

    return attack


def swapped(kind: str = "job", **attributes: Any) -> Attack:
    """Return an attack that changes attributes and keeps the proof or token."""
    return lambda world: getattr(world, kind)().replace(**attributes)


def on_the_wire(kind: str, **headers: Any) -> Attack:
    """Return an attack with a message header that no envelope can have."""

    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        wire = encode(envelope)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = {
            name: value for name, value in {**wire.headers, **names}.items() if value is not None
        }
        sent = type(wire)(
            **{**{name: getattr(wire, name) for name in wire.__dataclass_fields__}, "headers": raw}
        )
        return decode(sent, role=envelope.role, queue=envelope.queue, received=int(NOW * 1000))

    return attack


def unsigned(role: str) -> Attack:
    return lambda world: getattr(world, role)().replace(authorization=None, proof=None)


def later(seconds: float, attack: Attack) -> Attack:
    """Return an attack with a message that is delivered `seconds` after it was sent."""

    def wait(world: World) -> Envelope:
        envelope = attack(world)
        world.yard.clock.now += seconds
        return envelope

    return wait


def keyed(attack: Attack, **members: Any) -> Attack:
    """Return an attack in which the office's public key has other members."""

    def change(world: World) -> Envelope:
        world.yard.public["office-1"].update(members)
        return attack(world)

    return change


def flipped(at: int, kind: str) -> Attack:
    """Return an attack that flips one bit in one part of the token."""

    def flip(text: str) -> str:
        parts = text.split(".")
        data = bytearray(bytes_of(parts[at]))
        data[len(data) // 2] ^= 1
        parts[at] = base64(bytes(data))
        return ".".join(parts)

    return token(flip, kind)


def doubled(kind: str, name: str) -> Attack:
    """Return an attack with a duplicate claim, which two decoders could read differently."""

    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        header, claims, _ = parts_of(token_of(envelope))
        text = json.dumps(claims)
        return with_token(
            envelope,
            jws(
                header,
                f"{text[:-1]}, {json.dumps(name)}: {json.dumps(claims[name])}}}",
                world.key(envelope.source),
            ),
        )

    return attack
