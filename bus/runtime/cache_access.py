"""Access of a client to the replies that its process keeps."""

from collections.abc import Callable

from bus.contracts.contract import Contract
from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.middleware.cache import CacheAccess
from bus.runtime.pending_request import decode_reply
from bus.runtime.service_runtime import ServiceRuntime
from bus.security.anonymous import AnonymousIdentity

__all__ = ["cache_access"]

NO_RIGHTS: frozenset[str] = frozenset()


def cache_access(
    runtime: ServiceRuntime, waits: Callable[[str], bool] = lambda _: False
) -> CacheAccess:
    """Return the access of a service to the store of its process.

    With `BUS_AUTH=off` no service has rights, so nothing is checked.

    Args:
        runtime: The objects that all parts of this process share.
        waits: Function that returns True if the request with this id waits for its service.
    """
    identity = runtime.security.identity

    def refuse(contract: Contract) -> BusError | None:
        if isinstance(identity, AnonymousIdentity):
            return None
        return identity.check_send_permission(contract)

    def list_rights() -> frozenset[str]:
        return NO_RIGHTS if isinstance(identity, AnonymousIdentity) else identity.call_rights()

    return CacheAccess(
        store=runtime.reply_store,
        refusal=refuse,
        rights=list_rights,
        is_valid=_is_valid,
        waits=waits,
    )


def _is_valid(contract: Contract, reply: Envelope) -> bool:
    """Return True if a reply matches its contract. The caller of the request raises the error."""
    try:
        decode_reply(contract, reply)
    except BusError:
        return False
    return True
