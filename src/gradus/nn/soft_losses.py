"""Losses against what a teacher says, as sums: temperature^2 x KL(teacher || student), and squared errors.

Shapes: M targets, D width, V vocabulary of the student, K classes. The gradient by a logit is temperature x
(p_student - p_teacher): the factor temperature^2 keeps its size whatever the temperature (Hinton, Vinyals and
Dean 2015, section 2), and for a high one it is that of matching logits (section 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gradus.core.example import ROUND_TOKENS
from gradus.nn.losses import CHUNK_CELLS, ELSEWHERE


class Said(NamedTuple):
    """What gives a model's logits: states [M, D], the output's weight [V, D] and, where there is one, its
    bias [V]."""

    states: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def logits(self, part: slice) -> Tensor:
        """Of some of the states, in fp32 or better."""
        logits = torch.mm(self.states[part], self.weight.to(self.states.dtype).t())
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits if self.bias is None else logits + self.bias

    def filled(self, rows: int) -> Said:
        """With so many states of zeros at the end."""
        return self._replace(states=F.pad(self.states, (0, 0, 0, rows)))


def soft_cross_entropy_sum(logits: Tensor, wanted: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """The sum of weight [M] times temperature^2 x KL(wanted || softmax(logits / temperature)), logits and the
    probabilities wanted [M, K]; 0 for M = 0. Where nothing is wanted a logit may be -inf."""
    precision = torch.promote_types(logits.dtype, torch.float32)
    said = torch.log_softmax(logits.to(precision) / temperature, 1)
    divergence = _divergence(wanted.to(precision), wanted.to(precision).log(), said)
    return temperature**2 * (divergence * weight.to(precision)).sum()


def mean_log_softmax(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """The logarithm of the mean of softmax(logits / temperature) over several teachers [M, K]."""
    each = [torch.log_softmax(one / temperature, 1) for one in logits]
    return each[0] if len(each) == 1 else torch.logsumexp(torch.stack(each), 0) - math.log(len(each))


def linear_soft_cross_entropy(
    student: Said,
    teachers: Sequence[Said],
    weight: Tensor,
    temperature: float,
    chunk: int | None = None,
) -> Tensor:
    """The same over a vocabulary, against the mean of the teachers' probabilities; weight [M].

    As in `losses.linear_cross_entropy` logits are never all there, and nothing is kept of the teachers.
    Tokens that a teacher's output lacks have no probability there; those that the student's lacks do not
    count.
    """
    cells = CHUNK_CELLS.get(student.states.device.type, ELSEWHERE) // (1 + len(teachers))
    rows = chunk or max(64, cells // len(student.weight) // 64 * 64)
    result: Tensor = _LinearSoft.apply(
        *student, weight, [one._replace(states=one.states.detach()) for one in teachers], temperature, rows,
        torch.is_grad_enabled(),
    )  # fmt: skip
    return result


class _LinearSoft(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, output, bias, weight, teachers, temperature, rows, learns):
        precision = torch.promote_types(states.dtype, torch.float32)
        fill, targets = -len(states) % ROUND_TOKENS, len(states)
        student = Said(states, output, bias).filled(fill)
        teachers = [one.filled(fill) for one in teachers]
        factor = F.pad(weight.to(precision), (0, fill))
        needed = [learns and ctx.needs_input_grad[place] for place in range(3)]
        to_states = torch.empty_like(student.states) if needed[0] else None
        to_output = torch.zeros_like(output, dtype=precision) if needed[1] else None
        to_bias = torch.zeros_like(bias, dtype=precision) if needed[2] else None
        total = factor.new_zeros(())
        for start in range(0, len(factor), rows):
            part = slice(start, start + rows)
            said = torch.log_softmax(student.logits(part) / temperature, 1)
            wanted = mean_log_softmax([_as_wide(one.logits(part), said) for one in teachers], temperature)
            odds = wanted.exp()
            total += temperature**2 * (_divergence(odds, wanted, said) * factor[part]).sum()
            if not any(needed):
                continue
            gradient = said.exp_().sub_(odds).mul_(temperature * factor[part, None]).to(states.dtype)
            if to_states is not None:
                torch.mm(gradient, output.to(states.dtype), out=to_states[part])
            if to_output is not None:
                to_output.add_(torch.mm(gradient.t(), student.states[part]))
            if to_bias is not None:
                to_bias.add_(gradient.sum(0, dtype=precision))
        ctx.gradients = (None if to_states is None else to_states[:targets], to_output, to_bias)
        ctx.precisions = (states.dtype, output.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        passed = [
            None if one is None else (one.to(gradient.dtype) * gradient).to(precision)
            for one, precision in zip(ctx.gradients, ctx.precisions)
        ]
        return *passed, None, None, None, None, None


def _divergence(wanted: Tensor, logarithm: Tensor, said: Tensor) -> Tensor:
    """KL [M] of probabilities, given their logarithm, from those that `said` is the logarithm of [M, K]."""
    return torch.where(wanted > 0, wanted * (logarithm - said), 0.0).sum(1)


def _as_wide(logits: Tensor, like: Tensor) -> Tensor:
    """The logits of as many tokens as `like` has: more are left out, missing ones never said."""
    logits = logits[:, : like.shape[1]].to(like.dtype)
    return F.pad(logits, (0, like.shape[1] - logits.shape[1]), value=-torch.inf)
