"""Attacks with `reply_to`.

The broker closes the channel after a forbidden publish, which would also affect other replies.
"""

from tests.security.attacks.forging import Attack, later, swapped, unsigned
from tests.security.world import DAY, OPERATOR

ADDRESSES: dict[str, str] = {
    "another's": "mail.replies.1",
    "the asked service's own": "ledger.replies.1",
    "of a service that is none": "nobody.replies.1",
    "that only begins with the sender's name": "office-2.replies.1",
    "of its sender, without an instance": "office.replies.",
    "of its sender, without the dot": "office.replies",
    "with a space": "office.replies.a b",
    "with a wildcard for a word": "office.replies.*",
    "with a wildcard for all": "office.replies.#",
    "with a line end": "office.replies.1\n",
    "with a slash": "office.replies.a/b",
    "with a zero byte": "office.replies.a\0b",
    "with a letter that is no ASCII": "office.replies.é",
    "that is no word": "office.replies.\ud800",
    "in capitals": "OFFICE.replies.1",
    "behind a space": " office.replies.1",
    "that is a work queue": "ledger.jobs.close.v1",
    "that is its sender's own work queue": "office.jobs.close.v1",
    "that is empty": "",
    "that only looks direct": "amq.rabbitmq.reply-to-me",
    "that is direct and of nobody": "amq.rabbitmq.reply-to",
    "that is direct, with a line end": "amq.rabbitmq.reply-to.g2dk\n",
}
DIRECT = "amq.rabbitmq.reply-to.g2dkABByYWJiaXRAbG9jYWxob3N0AAAB+wAAAAA=.x7Zg+/=="


def proven(reply_to: str) -> Attack:
    """Return an attack by an authorized sender, which signs any `reply_to`."""
    return lambda world: world.job(reply_to=reply_to)


def claimed(source: str, reply_to: str) -> Attack:
    """Return an attack without a token that uses the name of a sender and requests a reply."""
    return lambda world: unsigned("request")(world).replace(source=source, reply_to=reply_to)


RETURN_ADDRESSES: dict[str, Attack] = {
    **{
        f"a request's reply_to {what}": swapped("request", reply_to=address)
        for what, address in ADDRESSES.items()
    },
    **{f"a job's reply_to {what}, proven": proven(address) for what, address in ADDRESSES.items()},
    **{
        f"no token, and a reply_to {what}": swapped("request", authorization=None, reply_to=address)
        for what, address in ADDRESSES.items()
    },
    "a request's reply_to that is direct, where its user has no right to answer it": swapped(
        "request", reply_to=DIRECT
    ),
    "a job's reply_to that is direct, proven": proven(DIRECT),
    "no token, in the name of nobody": claimed("nobody", "nobody.replies.1"),
    "no token, in the name of the asked service": claimed("ledger", "ledger.replies.1"),
    "no token, in the name of an operator": claimed(OPERATOR, f"{OPERATOR}.replies.1"),
    "no token, in a name that is none": claimed("a b", "a b.replies.1"),
    "no token, and no name": claimed("", ".replies.1"),
    "no proof, and a reply_to of nobody": lambda world: unsigned("job")(world).replace(
        source="nobody", reply_to="nobody.replies.1"
    ),
    "a job without the right, and a reply_to with a space": lambda world: world.job(
        "mail", reply_to="mail.replies.a b"
    ),
    "a job that has expired, and a reply_to with a space": later(
        2 * DAY, proven("office.replies.a b")
    ),
}
"""Attacks on a ledger with `BUS_TOPOLOGY=verify`, which may not use the default exchange."""
