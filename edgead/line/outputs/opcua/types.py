"""Builds the types of OPC 40100-1 in the address space of an asyncua server, from the tables of `model`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgead.errors import require
from edgead.line.outputs.opcua import model
from edgead.line.outputs.opcua.state_machine import ends_of

_VARIANTS = {"ResultStateDataType": "Int32", "UtcTime": "DateTime", "BaseDataType": "Variant"}
"""How asyncua sends values of these data types."""


class Types:
    """The types of the companion specification in one server.

    Args:
        server: an initialised ``asyncua.Server``.
        index: of the namespace `model.NAMESPACE` in it.

    Attributes:
        classes: the Python class of each structure, by name.
        data_types: the node of each data type, by name.
        objects: the node of each object and event type, by name.
    """

    def __init__(self, server: Any, index: int) -> None:
        asyncua: Any = require("asyncua", "opcua")
        self.ua = asyncua.ua
        self.server, self.index = server, index
        self.classes: dict[str, Any] = {}
        self.data_types: dict[str, Any] = {}
        self.objects: dict[str, Any] = {}

    async def build(self) -> None:
        """Create all types."""
        await self._build_data_types()
        for name, number in model.OBJECT_TYPES.items():
            machine = name in model.STATES
            base = self.ua.ObjectIds.FiniteStateMachineType if machine else self.ua.ObjectIds.BaseObjectType
            node = await self._node(base).add_object_type(self._id(number), self._name(name))
            self.objects[name] = node
            for method, described in model.METHODS.get(name, {}).items():
                await self._add_method(node, method, described)
            for state, (place, value, property_place) in model.STATES.get(name, {}).items():
                await self._add_numbered(node, state, place, "StateType", "StateNumber", value, property_place)
        for name, transitions in model.TRANSITIONS.items():
            for transition, (place, value, property_place) in transitions.items():
                await self._add_transition(name, transition, place, value, property_place)
        for name in (
            "VisionStateMachineType",
            "VisionSystemType",
        ):  # the parts of one are types with parts of their own
            for part, (number, kind, optional) in model.PARTS[name].items():
                made = await self.objects[name].add_object(
                    self._id(number), self._name(part), objecttype=self.objects[kind].nodeid
                )
                await self._rule(made, not optional)
        await self._build_events()

    async def _rule(self, node: Any, mandatory: bool) -> None:
        """Let a part and all of its parts be made with each instance."""
        await node.set_modelling_rule(mandatory)
        kinds = self.ua.NodeClass.Object | self.ua.NodeClass.Variable | self.ua.NodeClass.Method
        for child in await node.get_children(refs=self.ua.ObjectIds.Aggregates, nodeclassmask=kinds):
            await self._rule(child, True)

    def node_id_of(self, kind: str) -> Any:
        """Return the node id of a data type."""
        if kind in self.data_types:
            return self.data_types[kind].nodeid
        return self.ua.NodeId(getattr(self.ua.ObjectIds, kind))

    def variant_of(self, kind: str) -> Any:
        """Return how asyncua sends a value of a data type."""
        name = "ExtensionObject" if kind in self.classes else _VARIANTS.get(kind, kind)
        return self.ua.VariantType[name]

    async def _build_data_types(self) -> None:
        structures: Any = require("asyncua.common.structures104", "opcua")
        ua = self.ua
        for name, (number, base) in model.SIMPLE.items():
            parent = self._node(getattr(ua.ObjectIds, base))
            self.data_types[name] = await parent.add_data_type(self._id(number), self._name(name))
            ua.register_basetype(name, self._id(number), getattr(ua, base))
        number, name, values = model.TRI_STATE
        enumeration = await structures.new_enum(self.server, self._id(number), self._name(name), list(values))
        self.data_types[name] = enumeration
        definition = await enumeration.read_data_type_definition()
        ua.register_enum(name, enumeration.nodeid, structures.make_enum(name, definition, False)[name])
        for name, structure in model.STRUCTURES.items():
            base = self._node(ua.ObjectIds.Structure)
            node = await base.add_data_type(self._id(structure.number), self._name(name))
            encoding = await structures.create_encoding(
                node, self._id(structure.encoding), ua.QualifiedName("Default Binary", 0)
            )
            definition = ua.StructureDefinition()
            optional = any(field.optional for field in structure.fields)
            kinds = ua.StructureType
            definition.StructureType = kinds.StructureWithOptionalFields if optional else kinds.Structure
            definition.BaseDataType = base.nodeid
            definition.DefaultEncodingId = encoding.nodeid
            definition.Fields = [
                structures.new_struct_field(
                    field.name, self.node_id_of(field.type), array=field.array, optional=field.optional
                )
                for field in structure.fields
            ]
            await node.write_data_type_definition(definition)
            self.data_types[name] = node
            self.classes[name] = self._class_of(name, node.nodeid, definition)

    def _class_of(self, name: str, node_id: Any, definition: Any) -> Any:
        """Return the Python class of a structure. asyncua has one table of them for the whole process."""
        known = self.ua.extension_objects_by_datatype.get(node_id)
        if known is None:
            structures: Any = require("asyncua.common.structures104", "opcua")
            known = structures.make_structure(node_id, name, definition)[name]
            self.ua.register_extension_object(name, definition.DefaultEncodingId, known, node_id)
        return known

    async def _add_method(self, parent: Any, name: str, described: model.Method) -> None:
        def never(*_: Any) -> None:
            """A type's method is not called; an instance has its own."""

        inputs, outputs = (list(self.arguments(fields)) for fields in (described.inputs, described.outputs))
        made = await parent.add_method(self._id(described.number), self._name(name), never, inputs, outputs)
        await made.set_modelling_rule(not described.optional)

    def arguments(self, fields: Iterable[model.Field]) -> Iterable[Any]:
        """Return the arguments of a method."""
        for field in fields:
            argument = self.ua.Argument()
            argument.Name, argument.DataType = field.name, self.node_id_of(field.type)
            argument.ValueRank = 1 if field.array else -1
            argument.ArrayDimensions = [0] if field.array else []
            yield argument

    async def _add_numbered(
        self, parent: Any, name: str, place: int, kind: str, number: str, value: int, number_place: int
    ) -> Any:
        """Add a state or a transition, with its number."""
        ua = self.ua
        made = await parent.add_object(self._id(place), self._name(name))
        await made.delete_reference(ua.ObjectIds.BaseObjectType, ua.ObjectIds.HasTypeDefinition)
        await made.add_reference(getattr(ua.ObjectIds, kind), ua.ObjectIds.HasTypeDefinition, bidirectional=False)
        await made.add_property(
            self._id(number_place), ua.QualifiedName(number, 0), ua.Variant(value, ua.VariantType.UInt32)
        )
        return made

    async def _add_transition(self, kind: str, name: str, place: int, value: int, number_place: int) -> None:
        ids = self.ua.ObjectIds
        made = await self._add_numbered(
            self.objects[kind], name, place, "TransitionType", "TransitionNumber", value, number_place
        )
        for state, reference in zip(ends_of(name), (ids.FromState, ids.ToState)):
            number = next(states[state][0] for states in model.STATES.values() if state in states)
            await made.add_reference(self._id(number), reference)

    async def _build_events(self) -> None:
        ids, kinds = self.ua.ObjectIds, self.ua.VariantType
        base = self._node(ids.BaseEventType)
        for name, (number, described) in model.EVENT_TYPES.items():
            node = await base.add_object_type(self._id(number), self._name(name))
            for field, (place, kind) in described.items():
                made = await node.add_property(
                    self._id(place), self._name(field), None, kinds.Null, datatype=self.node_id_of(kind)
                )
                await made.set_modelling_rule(True)
            self.objects[name] = node
        number, name = model.STATE_CHANGED
        parent = self._node(ids.TransitionEventType)
        self.objects[name] = await parent.add_object_type(self._id(number), self._name(name))

    def _node(self, number: int) -> Any:
        return self.server.get_node(self.ua.NodeId(number))

    def _id(self, number: int) -> Any:
        return self.ua.NodeId(number, self.index)

    def _name(self, name: str) -> Any:
        return self.ua.QualifiedName(name, self.index)
