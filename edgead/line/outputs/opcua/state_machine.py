"""The state machines of a vision system, without a protocol: which call leads where."""

from __future__ import annotations

from edgead.line.outputs.opcua.model import STATES, TRANSITIONS

_STATES = {name: kind for kind, states in STATES.items() for name in states}
_MAIN, _AUTOMATIC = STATES
_CALLS = {
    "Halt": ("PreoperationalToHalted", "ErrorToHalted", "OperationalToHalted"),
    "Reset": ("HaltedToPreoperational", "ErrorToPreoperational", "OperationalToPreoperational"),
    "SelectModeAutomatic": ("PreoperationalToOperational",),
    "PrepareRecipe": ("InitializedToReadyRecipe",),
    "UnprepareRecipe": ("ReadyToInitializedRecipe",),
    "StartSingleJob": ("ReadyToSingleExecution",),
    "StartContinuous": ("ReadyToContinuousExecution",),
    "Stop": ("SingleExecutionToReadyStop", "ContinuousExecutionToReadyStop"),
    "Abort": ("SingleExecutionToReadyAbort", "ContinuousExecutionToReadyAbort"),
}
"""Of each method the transitions that it causes, one for each state in which it may be called."""


class WrongState(Exception):  # noqa: N818
    """A method was called in a state that does not allow it."""


class VisionStateMachine:
    """The state of a vision system. Not thread-safe.

    Attributes:
        main: ``Preoperational``, ``Halted``, ``Error`` or ``Operational``.
        automatic: the state while it is operational; kept during an error.
    """

    def __init__(self) -> None:
        self.main, self.automatic = "Preoperational", "Initialized"

    @property
    def executes(self) -> bool:
        """A job runs: results are the client's."""
        return self.main == "Operational" and self.automatic in ("SingleExecution", "ContinuousExecution")

    def call(self, method: str) -> str:
        """Take the transition of a method and return its name.

        Raises:
            WrongState: this state does not allow it.
        """
        return self.take(self.check(method))

    def check(self, method: str) -> str:
        """Return the transition of a method, without taking it.

        Raises:
            WrongState: this state does not allow it.
        """
        for name in _CALLS[method]:
            if self._leaves(name):
                return name
        state = self.automatic if self.main == "Operational" else self.main
        raise WrongState(f"{method} is not allowed in the state {state}")

    def take(self, transition: str) -> str:
        """Take a transition and return its name.

        Raises:
            WrongState: it begins in another state.
        """
        if not self._leaves(transition):
            raise WrongState(f"{transition} begins in another state than {self.main}/{self.automatic}")
        target = ends_of(transition)[1]
        if _STATES[target] == _AUTOMATIC:
            self.automatic = target
        else:
            if target in ("Preoperational", "Halted"):
                self.automatic = "Initialized"
            self.main = target
        return transition

    def _leaves(self, transition: str) -> bool:
        origin = ends_of(transition)[0]
        if _STATES[origin] == _AUTOMATIC:
            return self.main == "Operational" and self.automatic == origin
        return self.main == origin


def ends_of(transition: str) -> tuple[str, str]:
    """Return the states from which and to which a transition leads; its name tells them."""
    origin, _, rest = transition.partition("To")
    return origin, max((state for state in _STATES if rest.startswith(state)), key=len)


def machine_of(transition: str) -> str:
    """Return the type of the state machine that has a transition."""
    return next(kind for kind, transitions in TRANSITIONS.items() if transition in transitions)
