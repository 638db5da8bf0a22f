"""The state machines of OPC 40100-1: every call in every state."""

from __future__ import annotations

import pytest

from edgead.line.outputs.opcua.model import METHODS, PARTS, STATES, STRUCTURES, TRANSITIONS
from edgead.line.outputs.opcua.state_machine import _CALLS, VisionStateMachine, WrongState, ends_of, machine_of

ALLOWED = {
    ("Preoperational", "Halt"): "Halted",
    ("Preoperational", "SelectModeAutomatic"): "Initialized",
    ("Halted", "Reset"): "Preoperational",
    ("Error", "Reset"): "Preoperational",
    ("Error", "Halt"): "Halted",
    ("Initialized", "PrepareRecipe"): "Ready",
    ("Ready", "UnprepareRecipe"): "Initialized",
    ("Ready", "StartSingleJob"): "SingleExecution",
    ("Ready", "StartContinuous"): "ContinuousExecution",
    **{
        (state, method): "Ready" for state in ("SingleExecution", "ContinuousExecution") for method in ("Stop", "Abort")
    },
    **{(state, "Reset"): "Preoperational" for state in STATES["VisionAutomaticModeStateMachineType"]},
    **{(state, "Halt"): "Halted" for state in STATES["VisionAutomaticModeStateMachineType"]},
}
EVERY = [state for states in STATES.values() for state in states if state != "Operational"]


def machine_in(state: str) -> VisionStateMachine:
    machine = VisionStateMachine()
    if state in STATES["VisionAutomaticModeStateMachineType"]:
        machine.main, machine.automatic = "Operational", state
    else:
        machine.main = state
    return machine


@pytest.mark.parametrize("state", EVERY)
@pytest.mark.parametrize("method", _CALLS)
def test_a_call_leads_where_the_specification_says_or_is_refused(state: str, method: str) -> None:
    machine = machine_in(state)
    before = machine.main, machine.automatic
    if (state, method) in ALLOWED:
        transition = machine.call(method)
        now = machine.automatic if machine.main == "Operational" else machine.main
        assert now == ALLOWED[state, method] == ends_of(transition)[1].replace("Operational", "Initialized")
    else:
        with pytest.raises(WrongState, match=f"^{method} is not allowed in the state {state}$"):
            machine.call(method)
        assert (machine.main, machine.automatic) == before


def test_every_transition_can_be_taken_from_its_state_alone() -> None:
    for transitions in TRANSITIONS.values():
        for name in transitions:
            origin, target = ends_of(name)
            machine = machine_in("Initialized" if origin == "Operational" else origin)
            machine.take(name)
            assert target in (machine.main, machine.automatic)
            with pytest.raises(WrongState):
                machine.take(name)


def test_an_error_returns_to_what_was_executed() -> None:
    machine = machine_in("ContinuousExecution")
    assert machine.executes
    machine.take("OperationalToErrorAuto")
    assert not machine.executes
    machine.take("ErrorToOperationalAuto")
    assert (machine.automatic, machine.executes) == ("ContinuousExecution", True)


def test_the_tables_name_what_they_have() -> None:
    numbers = [
        *(structure.number for structure in STRUCTURES.values()),
        *(method.number for methods in METHODS.values() for method in methods.values()),
        *(number for parts in PARTS.values() for number, *_ in parts.values()),
        *(number for table in (STATES, TRANSITIONS) for each in table.values() for number, *_ in each.values()),
    ]
    assert len(set(numbers)) == len(numbers)
    assert {name for names in _CALLS.values() for name in names} <= {
        name for transitions in TRANSITIONS.values() for name in transitions
    }
    assert machine_of("ReadyToSingleExecution") == "VisionAutomaticModeStateMachineType"
    assert ends_of("SingleExecutionToReadyAuto") == ("SingleExecution", "Ready")
