"""The methods that an OPC UA client can call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

from edgead.errors import EdgeadError
from edgead.line.outputs.opcua.address_space import AddressSpace
from edgead.line.outputs.opcua.results import recipe_id
from edgead.line.outputs.opcua.state_machine import WrongState

UNKNOWN_RECIPE, UNKNOWN_RESULT, NOT_PREPARED = 1, 2, 3
"""Values of the output Error; 0 is none."""
DONT_CARE = 2
"""Input IsPrepared for any recipe; 0 and 1 are for those that are not, and the one that is."""
_IDS = (
    "MeasId",
    "PartId",
    "ExternalRecipeId",
    "InternalRecipeId",
    "ExternalConfigurationId",
    "InternalConfigurationId",
    "ProductId",
    "JobId",
)


class System(Protocol):
    """What the methods act on."""

    @property
    def recipes(self) -> dict[str, str]:
        """Versions of the recipes that can be prepared, by their names; empty for none."""

    @property
    def prepared(self) -> str:
        """Name of the recipe that is prepared; empty for none."""

    def prepare(self, name: str) -> None:
        """Let the line decide by a recipe, and be ready for a job.

        Raises:
            EdgeadError: it cannot.
            WrongState: the state does not allow it.
        """

    def call(self, method: str) -> None:
        """Take the transition of a method.

        Raises:
            WrongState: the state does not allow it.
        """

    def start(self, method: str, recipe: str) -> str:
        """Start a job by a recipe, empty for the one that decides; return the job's id.

        Raises:
            EdgeadError: the recipe cannot decide.
            WrongState: the state does not allow it.
        """


class Methods:
    """Answers calls. A call that the state does not allow ends with BadInvalidState.

    Args:
        system: the output.
        space: its address space.
    """

    def __init__(self, system: System, space: AddressSpace) -> None:
        self._system, self._space, self._ua = system, space, space.ua

    async def call(self, name: str, arguments: list[Any]) -> Any:
        """Run a method.

        Args:
            name: its browse name.
            arguments: the inputs, as ``Variant``.

        Returns:
            The outputs, or a StatusCode.
        """
        inputs = [argument.Value for argument in arguments]
        try:
            own = getattr(self, f"_{name}", None)
            return await own(*inputs) if own else self._simply(name)
        except WrongState:
            return self._ua.StatusCode(self._ua.StatusCodes.BadInvalidState)
        except (TypeError, AttributeError):
            return self._ua.StatusCode(self._ua.StatusCodes.BadInvalidArgument)

    def _simply(self, name: str) -> list[Any]:
        """Run a method that is only a transition."""
        self._system.call(name)
        return [self._error(0)]

    async def _StartSingleJob(self, _measurement: Any, _part: Any, recipe: Any, *_: Any) -> list[Any]:  # noqa: N802
        return await self._start("StartSingleJob", recipe)

    async def _StartContinuous(self, _measurement: Any, _part: Any, recipe: Any, *_: Any) -> list[Any]:  # noqa: N802
        return await self._start("StartContinuous", recipe)

    async def _start(self, method: str, recipe: Any) -> list[Any]:
        job = self._space.types.classes["JobIdDataType"]()

        def start(name: str) -> None:
            job.Id = self._system.start(method, name)

        error = await self._try_recipe(recipe, start)
        return [self._ua.Variant(job), self._error(error)]

    async def _try_recipe(self, wanted: Any, action: Callable[[str], None]) -> int:
        """Do what makes a recipe decide; return the number of the error, 0 for none.

        Args:
            wanted: id of the recipe; without a name for the one that decides. A version that it names must be the
                recipe's.
            action: takes the recipe's name.
        """
        name = _name_of(wanted)
        version = self._system.recipes.get(name)
        if name and (version is None or (wanted.Version or version) != version):
            return UNKNOWN_RECIPE
        try:
            await asyncio.get_running_loop().run_in_executor(None, action, name)
        except EdgeadError:
            return NOT_PREPARED
        return 0

    async def _PrepareRecipe(self, external: Any, internal: Any) -> list[Any]:  # noqa: N802
        wanted = external if _name_of(external) else internal
        error = await self._try_recipe(wanted, self._system.prepare) if _name_of(wanted) else UNKNOWN_RECIPE
        out = self._recipe_id(_name_of(wanted))
        if not error:
            await self._space.tell_prepared(out)
        return [self._ua.Variant(out), self._ua.Variant(not error), self._error(error)]

    async def _UnprepareRecipe(self, external: Any, internal: Any) -> list[Any]:  # noqa: N802
        self._system.call("UnprepareRecipe")
        return [self._ua.Variant(self._recipe_id(_name_of(external) or _name_of(internal))), self._error(0)]

    async def _GetRecipeListFiltered(  # noqa: N802
        self, external: Any, product: Any, prepared: Any, most: int, start: int, timeout: int
    ) -> list[Any]:
        ready, wanted = self._system.prepared, (0, 1) if prepared == DONT_CARE else (prepared,)
        names = [
            name
            for name in self._system.recipes
            if _name_of(external) in ("", "*", name) and int(name == ready) in wanted
        ]
        page = names[start : start + most] if most else names[start:]
        made = [self._recipe_id(name) for name in page]
        return [*self._listed(len(names) <= start + len(page), len(page)), self._array(made), self._error(0)]

    async def _GetResultById(self, result_id: Any, timeout: int) -> list[Any]:  # noqa: N802
        found, made = self._find(result_id)
        return [self._handle(), self._ua.Variant(made), self._error(0 if found else UNKNOWN_RESULT)]

    async def _GetResultComponentsById(self, result_id: Any, timeout: int) -> list[Any]:  # noqa: N802
        found, made = self._find(result_id)
        return [
            self._ua.Variant(False),
            self._handle(),
            *self._space.results.components(made),
            self._error(0 if found else UNKNOWN_RESULT),
        ]

    async def _GetResultListFiltered(self, state: int, *rest: Any) -> list[Any]:  # noqa: N802
        ids = {name: (given.Id or "") if given else "" for name, given in zip(_IDS, rest)}
        most, start = rest[len(_IDS)], rest[len(_IDS) + 1]
        end = start + most if most else None
        found = list(islice(self._space.results.matching(state, ids), start, None if end is None else end + 1))
        page = found[:most] if most else found
        return [*self._listed(len(page) == len(found), len(page)), self._array(page), self._error(0)]

    def _find(self, result_id: Any) -> tuple[bool, Any]:
        """Return whether a result is kept, and the result; an empty one if it is not.

        The timeout of a call is a hint how long the client needs the data. Nothing waits for it: a server answers the
        requests of a connection one after the other.
        """
        found = self._space.results.get(result_id.Id)
        return found is not None, self._space.types.classes["ResultDataType"]() if found is None else found

    def _recipe_id(self, name: str) -> Any:
        """Return the internal id of a recipe, with its version if it has one."""
        return recipe_id(self._space.types.classes, name, self._system.recipes.get(name, ""))

    def _listed(self, complete: bool, count: int) -> list[Any]:
        ua = self._ua
        return [ua.Variant(complete), ua.Variant(count, ua.VariantType.UInt32), self._handle()]

    def _array(self, made: list[Any]) -> Any:
        return self._ua.Variant(made, self._ua.VariantType.ExtensionObject, is_array=True)

    def _handle(self) -> Any:
        return self._ua.Variant(0, self._ua.VariantType.UInt32)

    def _error(self, code: int) -> Any:
        return self._ua.Variant(code, self._ua.VariantType.Int32)


def _name_of(identifier: Any) -> str:
    """Return the name in an id; empty where there is none."""
    return (identifier.Id if identifier else "") or ""
