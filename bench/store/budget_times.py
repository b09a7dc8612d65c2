"""The times that the budgets of a run began with (`nodes=auto`), as its run.json records them."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.common.errors import UserError
from bench.common.validation import first_error
from bench.store.run_record import RUN_FILE, Run, read_run_file
from decoders.spec import MOST_NODES

_Length = Annotated[int, Field(ge=1, le=1 << 31)]
_Nodes = Annotated[int, Field(ge=1, le=MOST_NODES)]
_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Depth = Annotated[str, Field(pattern=r"^\d{1,9}$")]
_DraftSeconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class MeasuredSteps(_Checked):
    """Seconds of a step without drafting."""

    lengths: Annotated[list[_Length], Field(min_length=1)]  # Committed positions, ascending.
    sizes: Annotated[list[_Nodes], Field(min_length=1)]  # Nodes, ascending from 1.
    seconds: list[list[_Seconds]]  # [lengths][sizes]

    @model_validator(mode="after")
    def _fits_together(self) -> "MeasuredSteps":
        for name, values in (("lengths", self.lengths), ("sizes", self.sizes)):
            if any(after <= before for before, after in pairwise(values)):
                raise ValueError(f"its {name} do not ascend")
        if self.sizes[0] != 1:
            raise ValueError(f"its sizes begin with {self.sizes[0]}, expected 1")
        if [len(row) for row in self.seconds] != [len(self.sizes)] * len(self.lengths):
            raise ValueError("its seconds are not a row of all sizes for each of its lengths")
        return self


class BudgetTimes(_Checked):
    """Step times, and for each decoder with a budget the seconds of drafting."""

    step_times: MeasuredSteps
    draft_times: dict[str, dict[_Depth, _DraftSeconds]]

    @property
    def draft_s(self) -> dict[str, dict[int, float]]:
        """Seconds that drafting adds to a step, by label and depth."""
        return {
            label: {int(depth): seconds for depth, seconds in by_depth.items()}
            for label, by_depth in self.draft_times.items()
        }


def budget_times(run: Run) -> BudgetTimes | None:
    """The times of a run. None: it recorded none. ValueError says what is wrong with them."""
    if run.step_times is None:
        return None
    try:
        return BudgetTimes(step_times=run.step_times, draft_times=run.draft_times or {})
    except ValidationError as error:
        raise ValueError(first_error(error)) from None


def read_budget_times(path: Path) -> BudgetTimes:
    """The times of the run that a path names: its folder, or its run.json under any name.

    UserError where it has none.
    """
    expected = f"expected the folder or the {RUN_FILE} of a run with nodes=auto"
    file = path / RUN_FILE if path.is_dir() else path
    try:
        times = budget_times(read_run_file(file))
    except UserError as error:
        raise UserError(f"{error}; {expected}") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); {expected}") from error
    if times is None:
        raise UserError(f"{file} has no step times of its own; {expected}, and without workers")
    return times
