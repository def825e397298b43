"""The LSTM's recurrence, forward and backward: a small product and a few sums a step, all else at once.

On the CPU, with bf16 states, a step of 16 windows takes half the time that it takes with torch's kernel,
which is fp32 there, and one of 32 rows a quarter. Shapes: N tokens, the real ones first, in the order of
steps, then a dead tail; D width, U units. Rows of matrices are the gates input, forget, candidate, output, U
each: torch's order.

    i, f, o = sigmoid(...), g = tanh(...) of  x W + b + h' V;  c = f c' + i g;  h = o tanh(c)

(Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000 and without peepholes.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

GATES = 4


def run_by_torch(
    states: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor, sizes: Sequence[int]
) -> Tensor:
    """Hidden states [N, U] of states [N, D] by torch's own kernel, in the precision of the weights.

    `weight` is [4U, D], `recurrent` [4U, U], `bias` [4U]; `sizes` says how many sequences take each step,
    never more than the step before. All begin with zeros; the dead tail is 0.
    """
    start = weight.new_zeros(1, sizes[0], recurrent.shape[1])
    return run_on(states, weight, recurrent, bias, sizes, (start, start))[0]


def run_on(
    states: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor,
    sizes: Sequence[int],
    start: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """The same from hidden states and cells `start`, [1, S, U] each; also gives those after the last steps,
    all in the order of steps."""
    parts = [weight, recurrent, bias, torch.zeros_like(bias)]
    order = torch.tensor(sizes)  # torch wants it on the host
    real = states[: sum(sizes)].to(weight.dtype)
    learns = torch.is_grad_enabled()  # cuDNN keeps what backward needs in its training mode only
    hidden, last, cells = torch.lstm(real, order, start, parts, True, 1, 0.0, learns, False)
    return F.pad(hidden, (0, 0, 0, len(states) - len(real))).to(states.dtype), last, cells


def run_by_hand(
    states: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor, sizes: Sequence[int]
) -> Tensor:
    """The same. Products run in the precision of the states; gates, cells and their gradients, and the
    gradients of the weights, in fp32 or better. It cannot be differentiated twice.
    """
    hidden: Tensor = _Recurrence.apply(states, weight, recurrent, bias, tuple(sizes))
    return hidden


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, weight, recurrent, bias, sizes):
        precision = torch.promote_types(states.dtype, torch.float32)
        units = recurrent.shape[1]
        over = recurrent.to(states.dtype).t().contiguous()
        raw = torch.addmm(bias.to(states.dtype), states, weight.to(states.dtype).t())
        gates = raw.new_empty(raw.shape, dtype=precision)
        cells, squashed = gates.new_empty(2, len(states), units)
        hidden = states.new_zeros(len(states), units)
        last = None
        for now in _slices(sizes):
            if last is not None:
                last = slice(last.start, last.start + now.stop - now.start)
                raw[now].addmm_(hidden[last], over)
            enter, forget, candidate, leave = _open(gates[now].copy_(raw[now]), units)
            cell = torch.mul(enter, candidate, out=cells[now])
            if last is not None:
                cell.addcmul_(forget, cells[last])
            hidden[now] = torch.tanh(cell, out=squashed[now]) * leave
            last = now
        ctx.save_for_backward(states, weight, recurrent, gates, cells, squashed, hidden)
        ctx.sizes = sizes
        return hidden

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        states, weight, recurrent, gates, cells, squashed, hidden = ctx.saved_tensors
        narrow, precision = states.dtype, weight.dtype
        slopes, through, forget = _slopes(gates, cells, squashed, ctx.sizes)
        moved = _backward_steps(gradient, slopes, through, forget, recurrent.to(narrow), ctx.sizes, narrow)
        to_states = moved @ weight.to(narrow) if ctx.needs_input_grad[0] else None
        to_weight = (moved.t() @ states).to(precision)
        to_recurrent = (moved.t() @ _one_step_earlier(hidden, ctx.sizes)).to(precision)
        to_bias = moved.sum(0, dtype=gates.dtype).to(precision)
        return to_states, to_weight, to_recurrent, to_bias, None


def _slices(sizes: Sequence[int]) -> list[slice]:
    """The places of every step."""
    return [slice(start, stop) for start, stop in pairwise(accumulate(sizes, initial=0))]


def _one_step_earlier(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """For every place [N, ...] the row of its sequence one step earlier; 0 where there was none."""
    earlier = torch.zeros_like(rows)
    for last, now in pairwise(_slices(sizes)):
        size = now.stop - now.start
        earlier[now] = rows[last.start : last.start + size]
    return earlier


def _open(gates: Tensor, units: int) -> tuple[Tensor, ...]:
    """The four gates of their raw values [rows, 4U], in place."""
    gates[:, : 2 * units].sigmoid_()
    gates[:, 2 * units : 3 * units].tanh_()
    gates[:, 3 * units :].sigmoid_()
    return gates.split(units, 1)


def _slopes(
    gates: Tensor, cells: Tensor, squashed: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """What the gradients of the cells and of the hidden states are multiplied by.

    [N, 4, U]: for the raw values of the gates; of the output gate it multiplies the hidden states' gradient,
    of the others the cells'. [N, U]: from a hidden state to its cell. [N, U]: from a cell to the one before.
    """
    enter, forget, candidate, leave = gates.split(cells.shape[1], 1)
    slopes = torch.empty(len(cells), GATES, cells.shape[1], dtype=cells.dtype, device=cells.device)
    torch.mul(candidate, enter * (1 - enter), out=slopes[:, 0])
    torch.mul(_one_step_earlier(cells, sizes), forget * (1 - forget), out=slopes[:, 1])
    torch.mul(enter, 1 - candidate * candidate, out=slopes[:, 2])
    torch.mul(squashed, leave * (1 - leave), out=slopes[:, 3])
    return slopes, leave * (1 - squashed * squashed), forget


def _backward_steps(
    gradient: Tensor,
    slopes: Tensor,
    through: Tensor,
    forget: Tensor,
    back: Tensor,
    sizes: Sequence[int],
    narrow: torch.dtype,
) -> Tensor:
    """The gradient [N, 4U] of the gates' raw values, last step first; `slopes` is used up."""
    moved = gradient.new_zeros(len(gradient), len(back), dtype=narrow)
    carried, after = slopes.new_empty(0, back.shape[1]), slice(0, 0)
    for now in reversed(_slices(sizes)):
        upstream = gradient[now].to(slopes.dtype, copy=True)
        upstream[: len(carried)] += moved[after] @ back
        to_cell = upstream * through[now]
        to_cell[: len(carried)] += carried
        here = slopes[now]
        here[:, :3].mul_(to_cell.unsqueeze(1))
        here[:, 3].mul_(upstream)
        moved[now] = here.flatten(1)
        carried, after = to_cell.mul_(forget[now]), now
    return moved
