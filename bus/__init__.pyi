# The public names, and the modules that define them.
# `__init__.py` reads this list. There is no other list of the public names.

from bus.contracts.contract import Catalog as Catalog
from bus.contracts.contract import Event as Event
from bus.contracts.contract import Job as Job
from bus.contracts.contract import Message as Message
from bus.contracts.contract import Request as Request
from bus.contracts.contract import contract as contract
from bus.contracts.retry_policy import RetryPolicy as RetryPolicy
from bus.contracts.sensitive import Sensitive as Sensitive
from bus.errors import Aborted as Aborted
from bus.errors import AlreadyExists as AlreadyExists
from bus.errors import BusError as BusError
from bus.errors import Cancelled as Cancelled
from bus.errors import ConfigurationError as ConfigurationError
from bus.errors import ConnectionLost as ConnectionLost
from bus.errors import ContractError as ContractError
from bus.errors import ContractViolation as ContractViolation
from bus.errors import DataLoss as DataLoss
from bus.errors import DeadlineExceeded as DeadlineExceeded
from bus.errors import Expired as Expired
from bus.errors import FailedPrecondition as FailedPrecondition
from bus.errors import Internal as Internal
from bus.errors import InvalidArgument as InvalidArgument
from bus.errors import InvalidResult as InvalidResult
from bus.errors import NotFound as NotFound
from bus.errors import NotServed as NotServed
from bus.errors import OutOfRange as OutOfRange
from bus.errors import PermissionDenied as PermissionDenied
from bus.errors import ProcessLost as ProcessLost
from bus.errors import ResourceExhausted as ResourceExhausted
from bus.errors import TopologyMismatch as TopologyMismatch
from bus.errors import Unauthenticated as Unauthenticated
from bus.errors import Unavailable as Unavailable
from bus.errors import Undecodable as Undecodable
from bus.errors import Unimplemented as Unimplemented
from bus.errors import Unknown as Unknown
from bus.errors import UnknownKey as UnknownKey
from bus.messaging.context import Context as Context
from bus.messaging.context import JobHandle as JobHandle
from bus.messaging.context import Sender as Sender
from bus.messaging.context import correlated as correlated
from bus.messaging.envelope import Envelope as Envelope
from bus.messaging.envelope import Progress as Progress
from bus.messaging.handler import Handler as Handler
from bus.messaging.handler import Middleware as Middleware
from bus.middleware.stacks import CLIENT as CLIENT
from bus.middleware.stacks import SERVER as SERVER
from bus.operations.logging import MessageContextFilter as MessageContextFilter
from bus.runtime.bus import Bus as Bus
from bus.runtime.dependencies import Depends as Depends
from bus.runtime.router import Router as Router
from bus.settings import Settings as Settings

__all__: list[str]  # noqa: PYI035 - computed at run time from the imports above
