"""A caller's own connection, of whatever library, as one that statements of ours are sent on.

Nothing here imports a library before a connection of it is given.
"""

from openworkflow.backend.callers.foreign import Foreign
from openworkflow.backend.callers.lending import Callers
from openworkflow.backend.callers.threads import OfThread

__all__ = ["Callers", "Foreign", "OfThread"]
