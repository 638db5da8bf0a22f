"""`edgead pull`: fetches a signed bundle, puts it in place, and takes it back where it fails on the line."""

from edgead.pull.pull import Pulled as Pulled
from edgead.pull.pull import pull as pull
