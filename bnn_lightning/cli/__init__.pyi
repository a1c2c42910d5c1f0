from .entry import first_error as first_error
from .entry import main as main
from .errors import UsageError as UsageError
from .session import Session as Session
from .verbs.base import Verb as Verb
