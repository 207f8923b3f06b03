"""What readings are held against: the model's distributions, its most probable tokens, and the text's next tokens.

In: the teacher and the tokens of N rows. Out: a `Reference`, and for a block of rows a `ReferenceBlock`, in which the
teacher's distributions are made.
Shapes: N rows, B rows of a block, G groups.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from alens.rows.agreement import ModelChoice
from alens.rows.held_out_rows import NO_NEXT_TOKEN
from alens.rows.teacher import Teacher, TeacherBlock


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What readings of N rows are held against: the model's distributions, and the text."""

    teacher: Teacher
    first: ModelChoice
    """The model's most probable next token."""
    next_ids_N: torch.Tensor
    """The text's next token, or NO_NEXT_TOKEN."""
    several: ModelChoice | None = None
    """The model's ten most probable tokens, or as many as are stored; for `TOP10`."""
    groups_N: torch.Tensor | None = None
    """The group of each row, 0 .. G - 1; None where there are no sums by group."""
    next_bytes_N: torch.Tensor | None = None
    """Bytes of the next token, 0 where there is none; for sums by group."""

    def block(self, rows: slice) -> "ReferenceBlock":
        """The reference of some of the rows, with the teacher's distributions."""
        return ReferenceBlock(
            teacher=self.teacher.block(rows),
            entropy_B=self.teacher.entropies[rows],
            first=self.first.rows(rows),
            several=None if self.several is None else self.several.rows(rows),
            next_ids_B=self.next_ids_N[rows],
        )


@dataclass(frozen=True, kw_only=True)
class ReferenceBlock:
    """What all readings of B rows are held against."""

    teacher: TeacherBlock
    entropy_B: torch.Tensor
    first: ModelChoice
    several: ModelChoice | None
    next_ids_B: torch.Tensor

    @cached_property
    def has_next_B(self) -> torch.Tensor:
        """(B,) bool: the row has a next token."""
        return self.next_ids_B != NO_NEXT_TOKEN

    @cached_property
    def next_B1(self) -> torch.Tensor:
        """(B, 1) the next token, or any token where there is none."""
        return self.next_ids_B.clamp_min(0)[:, None]
