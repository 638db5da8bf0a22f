"""Names and numbers of OPC 40100-1 (machine vision, version 1.0), as published; only what edgead has.

Numbers are the identifiers of nodes in the namespace `NAMESPACE`. A method or field names its data type by the name of
one of `STRUCTURES` or `SIMPLE`, or of a built-in type.
"""

from __future__ import annotations

from dataclasses import dataclass

NAMESPACE = "http://opcfoundation.org/UA/MachineVision"

SIMPLE = {
    "TrimmedString": (3017, "String"),
    "Handle": (3018, "UInt32"),
    "ResultStateDataType": (3009, "Int32"),
}
"""Of each derived data type its number and the built-in type that it is."""
TRI_STATE = (3014, "TriStateBooleanDataType", ("FALSE_0", "TRUE_1", "DONTCARE_2"))


@dataclass(frozen=True)
class Field:
    """A field of a structure, or an argument of a method."""

    name: str
    type: str
    optional: bool = False
    array: bool = False


@dataclass(frozen=True)
class Structure:
    """A structured data type.

    Attributes:
        number: of its node.
        encoding: number of its binary encoding.
    """

    number: int
    encoding: int
    fields: tuple[Field, ...]


_NAMED = (Field("Id", "TrimmedString"), Field("Description", "LocalizedText", optional=True))
_BINARY_ID = (
    Field("Id", "TrimmedString"),
    Field("Version", "TrimmedString", optional=True),
    Field("Hash", "ByteString", optional=True),
    Field("HashAlgorithm", "String", optional=True),
    Field("Description", "LocalizedText", optional=True),
)
STRUCTURES = {
    "JobIdDataType": Structure(3016, 5008, (Field("Id", "TrimmedString"),)),
    "ResultIdDataType": Structure(3021, 5274, (Field("Id", "TrimmedString"),)),
    "MeasIdDataType": Structure(3015, 5006, _NAMED),
    "PartIdDataType": Structure(3004, 5013, _NAMED),
    "ProductIdDataType": Structure(3003, 5224, _NAMED),
    "ConfigurationIdDataType": Structure(3008, 5090, _BINARY_ID),
    "RecipeIdExternalDataType": Structure(3002, 5002, _BINARY_ID),
    "RecipeIdInternalDataType": Structure(3013, 5268, _BINARY_ID),
    "ProcessingTimesDataType": Structure(
        3005,
        5016,
        (
            Field("StartTime", "UtcTime"),
            Field("EndTime", "UtcTime"),
            Field("AcquisitionDuration", "Duration", optional=True),
            Field("ProcessingDuration", "Duration", optional=True),
        ),
    ),
    "ResultDataType": Structure(
        3006,
        5018,
        (
            Field("ResultId", "ResultIdDataType"),
            Field("HasTransferableDataOnFile", "Boolean", optional=True),
            Field("IsPartial", "Boolean"),
            Field("IsSimulated", "Boolean", optional=True),
            Field("ResultState", "ResultStateDataType"),
            Field("MeasId", "MeasIdDataType", optional=True),
            Field("PartId", "PartIdDataType", optional=True),
            Field("ExternalRecipeId", "RecipeIdExternalDataType", optional=True),
            Field("InternalRecipeId", "RecipeIdInternalDataType"),
            Field("ProductId", "ProductIdDataType", optional=True),
            Field("ExternalConfigurationId", "ConfigurationIdDataType", optional=True),
            Field("InternalConfigurationId", "ConfigurationIdDataType"),
            Field("JobId", "JobIdDataType"),
            Field("CreationTime", "UtcTime"),
            Field("ProcessingTimes", "ProcessingTimesDataType", optional=True),
            Field("ResultContent", "BaseDataType", optional=True, array=True),
        ),
    ),
}


@dataclass(frozen=True)
class Method:
    """A method of an object type."""

    number: int
    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    optional: bool = False


_ERROR = Field("Error", "Int32")
_CAUSE = (Field("Cause", "Int32"), Field("CauseDescription", "String"))
_START = (
    Field("MeasId", "MeasIdDataType"),
    Field("PartId", "PartIdDataType"),
    Field("RecipeId", "RecipeIdExternalDataType"),
    Field("ProductId", "ProductIdDataType"),
    Field("Parameters", "BaseDataType", array=True),
)
_RECIPE = (Field("ExternalId", "RecipeIdExternalDataType"), Field("InternalIdIn", "RecipeIdInternalDataType"))
_ONE_RESULT = (Field("ResultId", "ResultIdDataType"), Field("Timeout", "Int32"))
_HANDLE = Field("ResultHandle", "Handle")
_PAGE = (Field("MaxResults", "UInt32"), Field("StartIndex", "UInt32"), Field("Timeout", "Int32"))
_CONTENT = {field.name: field for field in STRUCTURES["ResultDataType"].fields}
COMPONENTS = (
    "IsPartial",
    "IsSimulated",
    "ResultState",
    "MeasId",
    "PartId",
    "ExternalRecipeId",
    "InternalRecipeId",
    "ProductId",
    "ExternalConfigurationId",
    "InternalConfigurationId",
    "JobId",
    "CreationTime",
    "ProcessingTimes",
    "ResultContent",
)
"""Fields of a result that GetResultComponentsById returns one by one."""
METHODS = {
    "VisionStateMachineType": {
        "Reset": Method(7093, _CAUSE, (_ERROR,)),
        "Halt": Method(7094, _CAUSE, (_ERROR,)),
        "SelectModeAutomatic": Method(7095, (), (_ERROR,), optional=True),
    },
    "VisionAutomaticModeStateMachineType": {
        "StartSingleJob": Method(7098, _START, (Field("JobId", "JobIdDataType"), _ERROR)),
        "StartContinuous": Method(7009, _START, (Field("JobId", "JobIdDataType"), _ERROR)),
        "Stop": Method(7096, _CAUSE, (_ERROR,)),
        "Abort": Method(7097, _CAUSE, (_ERROR,)),
    },
    "RecipeManagementType": {
        "PrepareRecipe": Method(
            7015,
            _RECIPE,
            (Field("InternalIdOut", "RecipeIdInternalDataType"), Field("IsCompleted", "Boolean"), _ERROR),
        ),
        "UnprepareRecipe": Method(7055, _RECIPE, (Field("InternalIdOut", "RecipeIdInternalDataType"), _ERROR)),
        "GetRecipeListFiltered": Method(
            7014,
            (
                Field("ExternalId", "RecipeIdExternalDataType"),
                Field("ProductId", "ProductIdDataType"),
                Field("IsPrepared", "TriStateBooleanDataType"),
                *_PAGE,
            ),
            (
                Field("IsComplete", "Boolean"),
                Field("ResultCount", "UInt32"),
                Field("RecipeHandle", "Handle"),
                Field("RecipeList", "RecipeIdInternalDataType", array=True),
                _ERROR,
            ),
        ),
    },
    "ResultManagementType": {
        "GetResultById": Method(7026, _ONE_RESULT, (_HANDLE, Field("Result", "ResultDataType"), _ERROR)),
        "GetResultComponentsById": Method(
            7007,
            _ONE_RESULT,
            (
                Field("HasTransferableDataOnFile", "Boolean"),
                _HANDLE,
                *(_CONTENT[name] for name in COMPONENTS),
                _ERROR,
            ),
        ),
        "GetResultListFiltered": Method(
            7089,
            (
                Field("ResultState", "ResultStateDataType"),
                Field("MeasId", "MeasIdDataType"),
                Field("PartId", "PartIdDataType"),
                Field("ExternalRecipeId", "RecipeIdExternalDataType"),
                Field("InternalRecipeId", "RecipeIdInternalDataType"),
                Field("ExternalConfigurationId", "ConfigurationIdDataType"),
                Field("InternalConfigurationId", "ConfigurationIdDataType"),
                Field("ProductId", "ProductIdDataType"),
                Field("JobId", "JobIdDataType"),
                *_PAGE,
            ),
            (
                Field("IsComplete", "Boolean"),
                Field("ResultCount", "UInt32"),
                _HANDLE,
                Field("ResultList", "ResultDataType", array=True),
                _ERROR,
            ),
        ),
    },
}
"""Methods by object type and name."""
OBJECT_TYPES = {
    "VisionSystemType": 1003,
    "RecipeManagementType": 1004,
    "ResultManagementType": 1007,
    "VisionStateMachineType": 1017,
    "VisionAutomaticModeStateMachineType": 1021,
}
PARTS = {
    "VisionSystemType": {
        "VisionStateMachine": (5053, "VisionStateMachineType", False),
        "RecipeManagement": (5015, "RecipeManagementType", True),
        "ResultManagement": (5020, "ResultManagementType", True),
    },
    "VisionStateMachineType": {
        "AutomaticModeStateMachine": (5024, "VisionAutomaticModeStateMachineType", True),
    },
}
"""Objects of an object type: number, type, optional."""
EVENT_TYPES = {
    "JobStartedEventType": (1013, {"JobId": (6141, "JobIdDataType")}),
    "ReadyEventType": (1023, {"JobId": (6294, "JobIdDataType")}),
    "RecipePreparedEventType": (1022, {"InternalId": (6140, "RecipeIdInternalDataType")}),
    "ResultReadyEventType": (
        1024,
        {
            "ResultId": (6295, "ResultIdDataType"),
            "IsPartial": (6296, "Boolean"),
            "ResultState": (6298, "ResultStateDataType"),
            "JobId": (6300, "JobIdDataType"),
            "InternalRecipeId": (6302, "RecipeIdInternalDataType"),
            "InternalConfigurationId": (6142, "ConfigurationIdDataType"),
            "CreationTime": (6303, "UtcTime"),
            "PartId": (6304, "PartIdDataType"),
            "ProcessingTimes": (6305, "ProcessingTimesDataType"),
            "ResultContent": (6306, "BaseDataType"),
        },
    ),
}
"""Event types: number, and the number and data type of each field. All are subtypes of BaseEventType."""
STATE_CHANGED = (1018, "StateChangedEventType")
"""A subtype of TransitionEventType."""
STATES = {
    "VisionStateMachineType": {
        "Preoperational": (5028, 1, 6226),
        "Halted": (5029, 2, 6227),
        "Error": (5030, 3, 6228),
        "Operational": (5031, 4, 6229),
    },
    "VisionAutomaticModeStateMachineType": {
        "Initialized": (5056, 5, 6259),
        "Ready": (5057, 6, 6260),
        "SingleExecution": (5058, 7, 6261),
        "ContinuousExecution": (5059, 8, 6262),
    },
}
"""States: number of the node, StateNumber, number of the StateNumber's node."""
TRANSITIONS = {
    "VisionStateMachineType": {
        "PreoperationalToHalted": (5032, 121, 6230),
        "HaltedToPreoperational": (5037, 211, 6235),
        "ErrorToPreoperational": (5039, 311, 6237),
        "ErrorToHalted": (5041, 321, 6239),
        "OperationalToPreoperational": (5047, 411, 6245),
        "OperationalToHalted": (5049, 421, 6247),
        "OperationalToErrorAuto": (5051, 430, 6249),
        "PreoperationalToOperational": (5253, 141, 6171),
        "PreoperationalToOperationalAuto": (5254, 140, 6221),
        "ErrorToOperationalAuto": (5255, 340, 6341),
    },
    "VisionAutomaticModeStateMachineType": {
        "InitializedToReadyRecipe": (5060, 561, 6263),
        "InitializedToReadyAuto": (5061, 560, 6264),
        "ReadyToInitializedRecipe": (5062, 651, 6265),
        "ReadyToSingleExecution": (5064, 671, 6267),
        "ReadyToContinuousExecution": (5066, 681, 6269),
        "ReadyToContinuousExecutionAuto": (5067, 680, 6270),
        "SingleExecutionToReadyStop": (5068, 761, 6271),
        "SingleExecutionToReadyAbort": (5069, 762, 6272),
        "SingleExecutionToReadyAuto": (5070, 760, 6273),
        "ContinuousExecutionToReadyStop": (5071, 861, 6274),
        "ContinuousExecutionToReadyAbort": (5072, 862, 6275),
    },
}
"""Transitions: number of the node, TransitionNumber, number of the TransitionNumber's node."""
LEFT_OUT = (
    "ConfigurationManagement",
    "SafetyStateManagement",
    "Products",
    "RecipeTransfer",
    "Recipes",
    "AddRecipe",
    "PrepareProduct",
    "ReleaseRecipeHandle",
    "RemoveRecipe",
    "UnlinkProduct",
    "UnprepareProduct",
    "ResultTransfer",
    "Results",
    "ReleaseResultHandle",
    "ConfirmAll",
    "SimulationMode",
    "PreoperationalStepModel",
    "HaltedStepModel",
    "ErrorStepModel",
    "InitializedStepModel",
    "ReadyStepModel",
    "SingleExecutionStepModel",
    "ContinuousExecutionStepModel",
)
"""Optional parts of these types that edgead does not have."""
