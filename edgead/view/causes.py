"""What an operator is told about an UNKNOWN: what happened, and what to check. docs/operate.md has the same words."""

from __future__ import annotations

from typing import NamedTuple


class Advice(NamedTuple):
    """What happened, and what to do, in plain words."""

    what: str
    check: str


ADVICE = {
    "unreadable": Advice("The picture is damaged", "Check the camera cable and the network."),
    "lost": Advice(
        "The camera does not answer", "Check the camera's power, cable and network. It reconnects by itself."
    ),
    "silent": Advice("No picture arrives", "Check the trigger, the camera and the network."),
    "stale": Advice("The picture arrived too late", "Check the network and the load of the computer."),
    "late": Advice(
        "The decision came too late", "Check the load of the computer. If it happens again, call the engineer."
    ),
    "black": Advice("The picture is dark", "Check the lamp, the lens cap and the exposure."),
    "blurred": Advice("The picture is not sharp", "Clean the lens. Check the focus, and that the part stands still."),
    "drift": Advice("Good parts look different from before", "Check lamp, lens and focus. Send the reference parts."),
    "frozen": Advice("The camera repeats one picture", "Restart the camera."),
    "resized": Advice("The picture has another shape or size", "Restore the camera's settings, then restart the run."),
    "untrained": Advice(
        "The picture has a shape or size the model never saw", "Restore the camera's settings or its crop."
    ),
    "misplaced": Advice("The part is not where it should be", "Check that it lies right and that nothing covers it."),
    "paused": Advice("The inspection is paused", "No part is inspected. Resume on this page."),
    "failed": Advice("The inspection engine failed", "Call the engineer. The log has the reason."),
    "no_frame": Advice("No picture came for a part", "Check the camera, and the distance from trigger to camera."),
    "too_close": Advice("Two parts came too close together", "Check the light barrier and the distance between parts."),
    "stopped": Advice("The inspection ended before this part was decided", "Inspect the part by hand."),
    "score": Advice("The model returned no usable score", "Call the engineer: edgead inspect BUNDLE."),
}
"""By cause, a word of `edgead.runtime.result.CAUSES`."""

OTHER = Advice("No decision was possible", "Call the engineer. The log has the reason.")


def advice_on(cause: str) -> Advice:
    """Return what to say about a cause."""
    return ADVICE.get(cause, OTHER)
