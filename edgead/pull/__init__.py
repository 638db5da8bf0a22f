"""`edgead pull`: fetches a signed bundle, puts it in place, and takes it back where it fails on the line."""

from edgead.pull.place import Pulled as Pulled
from edgead.pull.pulling import pull as pull
