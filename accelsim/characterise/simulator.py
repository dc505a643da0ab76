"""Event-driven gate-level simulation with Liberty delays and energies.

Delays are inertial: a gate whose output is about to change and no longer has reason to does not. A transition
of a net costs 0.5 C V^2 (pins it drives, and the output load) and the internal energy Liberty lists for the
arc that caused it; an input edge costs its passive energy in the state it meets, whether an output follows
or not. The clock is ideal; its pins and gates are counted apart. All operands change at one instant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from accelsim_kernels.jit import njit

from accelsim.characterise.circuit import FLIP_FLOP, GATE, LATCH, Circuit
from accelsim.characterise.netlist import ONE
from accelsim.characterise.timing import TICK_PS, Timing

# Slots of the event wheel, a power of two: the longest delay it can hold is 32.8 ns.
WHEEL = 1 << 17
# Operands of clocked circuits change this long after the slowest clock branch.
HOLD_MARGIN_PS = 5.0
SHORTEST_CYCLE_PS, CYCLE_SLACK, CYCLE_MARGIN_PS = 1000.0, 1.25, 100.0
# Indices of the accumulated energies.
SWITCHING, INPUT_PINS, CLOCK, INTERNAL, PASSIVE, ZERO_DELAY = range(6)
# Indices of `State.counters`.
NOW, WAITING, TRANSITIONS = range(3)


class State(NamedTuple):
    """Values of all nets and the changes that wait. A net has one waiting change at most, so the slots of the
    wheel are doubly linked lists of nets, first come first."""

    value: np.ndarray  # int8[net]
    cause: np.ndarray  # int32[net]: the driver's input pin behind the last change
    slot: np.ndarray  # int32[net], -1: nothing waits
    after: np.ndarray  # int32[net]
    before: np.ndarray  # int32[net]
    head: np.ndarray  # int32[WHEEL]
    tail: np.ndarray  # int32[WHEEL]
    memory: np.ndarray  # int8[instance]: enables held by clock gates
    counters: np.ndarray  # int64[3]
    energy: np.ndarray  # float64[6], fJ


@dataclass(frozen=True)
class Activity:
    """Energies of one operation, fJ, mean over the operations after warm-up.

    total = switching + input_pins + clock + internal + hidden; zero_delay counts only settled values, so
    the difference is mostly glitches. outputs: uint8[operation, output bit], warm-up included.
    """

    total_fj: float
    switching_fj: float
    input_pins_fj: float
    clock_fj: float
    internal_fj: float
    hidden_fj: float
    zero_delay_fj: float
    transitions: float
    outputs: np.ndarray


def simulate(
    circuit: Circuit, timing: Timing, vectors: np.ndarray, warm_up: int, hold_ps: float | None = None
) -> Activity:
    """vectors: uint8[operation, input bit], one operation each (clocked circuits: one cycle). hold_ps: from
    the clock edge to the change of the operands, by default until all of the clock network has switched."""
    cycle_ps = max(SHORTEST_CYCLE_PS, CYCLE_SLACK * timing.critical_ps + CYCLE_MARGIN_PS)
    if hold_ps is None:
        hold_ps = timing.latest_clock_ps + HOLD_MARGIN_PS
    energies, transitions, outputs = _run(
        circuit, timing, vectors, warm_up, int(cycle_ps / TICK_PS), round(hold_ps / TICK_PS)
    )
    operations = len(vectors) - warm_up
    per = [float(energy) / operations for energy in energies]
    return Activity(
        sum(per[:ZERO_DELAY]),
        per[SWITCHING],
        per[INPUT_PINS],
        per[CLOCK],
        per[INTERNAL],
        per[PASSIVE],
        per[ZERO_DELAY],
        transitions / operations,
        outputs,
    )


@njit(cache=True, nogil=True)
def _evaluate(c, value, g, o):
    t = c.type_of[g]
    row = 0
    first = c.input_start[g]
    for i in range(c.input_start[g + 1] - first):
        row |= value[c.input_net[first + i]] << i
    return c.t_truth[c.t_truth_start[c.t_output_start[t] + o] + row]


@njit(cache=True, nogil=True)
def _settle(c, timing, value):
    """Every gate at the value of its function."""
    for g in timing.order:
        for o in range(c.output_start[g + 1] - c.output_start[g]):
            net = c.output_net[c.output_start[g] + o]
            if net >= 0:
                value[net] = _evaluate(c, value, g, o)


@njit(cache=True, nogil=True)
def _state(c, value, g):
    """Inputs of an instance in the low bits, outputs above them."""
    first, last = c.input_start[g], c.input_start[g + 1]
    row = 0
    for i in range(last - first):
        row |= value[c.input_net[first + i]] << i
    out = c.output_start[g]
    for o in range(c.output_start[g + 1] - out):
        if c.output_net[out + o] >= 0:
            row |= value[c.output_net[out + o]] << (last - first + o)
    return row


@njit(cache=True, nogil=True)
def _schedule(s, net, value, ticks, pin):
    """Let `net` become `value` after `ticks`; a waiting change to the other value is taken back."""
    if s.slot[net] >= 0:
        if value == s.value[net]:
            _unlink(s, net)
        return
    if value == s.value[net]:
        return
    slot = (s.counters[NOW] + min(max(ticks, 1), WHEEL - 1)) & (WHEEL - 1)
    s.cause[net] = pin
    s.slot[net] = slot
    s.after[net] = -1
    s.before[net] = s.tail[slot]
    if s.tail[slot] < 0:
        s.head[slot] = net
    else:
        s.after[s.tail[slot]] = net
    s.tail[slot] = net
    s.counters[WAITING] += 1


@njit(cache=True, nogil=True)
def _unlink(s, net):
    """Take a net's change out of the wheel."""
    slot, before, after = s.slot[net], s.before[net], s.after[net]
    if before < 0:
        s.head[slot] = after
    else:
        s.after[before] = after
    if after < 0:
        s.tail[slot] = before
    else:
        s.before[after] = before
    s.slot[net] = -1
    s.counters[WAITING] -= 1


@njit(cache=True, nogil=True)
def _toggle(c, timing, s, net):
    """One transition: its energy, and what it makes the cells behind it do."""
    edge = 1 if s.value[net] else 0  # of the net: 0 rising, 1 falling
    energy = 0.5 * c.load_ff[net] * c.supply_v * c.supply_v
    g = c.driver[net]
    if g < 0:
        s.energy[CLOCK if net == c.clock else INPUT_PINS] += energy
    else:
        inputs = c.input_start[g + 1] - c.input_start[g]
        arc = c.arc_start[g] + c.driver_output[net] * inputs + s.cause[net]
        s.energy[INTERNAL] += timing.energy_fj[arc, edge]
        s.energy[CLOCK if timing.on_clock[net] else SWITCHING] += energy
    s.counters[TRANSITIONS] += 1
    for k in range(c.fan_start[net], c.fan_start[net + 1]):
        h, pin = c.fan_instance[k], c.fan_pin[k]
        first, last = (
            timing.passive_start[c.input_start[h] + pin],
            timing.passive_start[c.input_start[h] + pin + 1],
        )
        if first == last:
            continue
        t = c.type_of[h]
        row = _state(c, s.value, h)
        entry = c.t_passive_start[c.t_input_start[t] + pin]
        account = CLOCK if c.t_kind[t] != GATE and pin == c.t_clock_pin[t] else PASSIVE
        for e in range(last - first):
            if c.t_states[c.t_states_start[entry + e] + row]:
                s.energy[account] += timing.passive_fj[first + e, edge]
    s.value[net] = 1 - s.value[net]
    for k in range(c.fan_start[net], c.fan_start[net + 1]):
        _react(c, timing, s, c.fan_instance[k], c.fan_pin[k])


@njit(cache=True, nogil=True)
def _react(c, timing, s, g, pin):
    """An input pin of instance g has changed."""
    t = c.type_of[g]
    kind = c.t_kind[t]
    first = c.input_start[g]
    inputs = c.input_start[g + 1] - first
    stored = 0
    if kind != GATE:
        clock = s.value[c.input_net[first + c.t_clock_pin[t]]]
        stored = s.value[c.input_net[first + c.t_data_pin[t]]]
        if kind == FLIP_FLOP:
            if pin != c.t_clock_pin[t] or clock != c.t_active[t]:
                return
        elif kind == LATCH:
            if clock != c.t_active[t]:
                return
        else:
            if not clock:
                s.memory[g] = stored
            stored = clock & s.memory[g]
    for o in range(c.output_start[g + 1] - c.output_start[g]):
        net = c.output_net[c.output_start[g] + o]
        if net < 0:
            continue
        own = o * inputs + pin
        if kind == GATE:
            if not c.t_has_arc[c.t_arc_start[t] + own]:
                continue
            value = _evaluate(c, s.value, g, o)
        else:
            value = stored ^ c.t_inverted[c.t_output_start[t] + o]
        _schedule(s, net, value, timing.delay_ticks[c.arc_start[g] + own, 0 if value else 1], pin)


@njit(cache=True, nogil=True)
def _advance(c, timing, s, until):
    """Process all changes up to and including tick `until`; below 0: until nothing waits."""
    while s.counters[WAITING] > 0 if until < 0 else s.counters[NOW] <= until:
        slot = s.counters[NOW] & (WHEEL - 1)
        while s.head[slot] >= 0:
            net = s.head[slot]
            _unlink(s, net)
            _toggle(c, timing, s, net)
        s.counters[NOW] += 1


@njit(cache=True, nogil=True)
def _settled_energy(c, timing):
    """fJ of one transition of each net, [net, edge], internal energy as the mean over the arcs."""
    energy = np.zeros((c.nets, 2))
    for net in range(c.nets):
        energy[net] = 0.5 * c.load_ff[net] * c.supply_v * c.supply_v
        g = c.driver[net]
        if g < 0:
            continue
        t = c.type_of[g]
        inputs = c.input_start[g + 1] - c.input_start[g]
        own = c.driver_output[net] * inputs
        arcs = 0
        total = np.zeros(2)
        for i in range(inputs):
            if c.t_has_arc[c.t_arc_start[t] + own + i]:
                total += timing.energy_fj[c.arc_start[g] + own + i]
                arcs += 1
        if arcs:
            energy[net] += total / arcs
    return energy


@njit(cache=True, nogil=True)
def _initial(c, timing):
    """Stored bits 0, everything else settled."""
    s = State(
        np.zeros(c.nets, np.int8), np.zeros(c.nets, np.int32), np.full(c.nets, -1, np.int32),
        np.full(c.nets, -1, np.int32), np.full(c.nets, -1, np.int32), np.full(WHEEL, -1, np.int32),
        np.full(WHEEL, -1, np.int32), np.zeros(len(c.type_of), np.int8), np.zeros(3, np.int64),
        np.zeros(6),
    )  # fmt: skip
    s.value[ONE] = 1
    for g in range(len(c.type_of)):
        t = c.type_of[g]
        if c.t_kind[t] == FLIP_FLOP or c.t_kind[t] == LATCH:
            for o in range(c.output_start[g + 1] - c.output_start[g]):
                if c.output_net[c.output_start[g] + o] >= 0:
                    s.value[c.output_net[c.output_start[g] + o]] = c.t_inverted[c.t_output_start[t] + o]
    _settle(c, timing, s.value)
    return s


@njit(cache=True, nogil=True)
def _run(c, timing, vectors, warm_up, cycle_ticks, hold_ticks):
    s = _initial(c, timing)
    settled = _settled_energy(c, timing)
    outputs = np.zeros((len(vectors), len(c.outputs)), np.uint8)
    before = np.empty_like(s.value)
    for operation in range(len(vectors)):
        if operation == warm_up:
            s.energy[:] = 0.0
            s.counters[TRANSITIONS] = 0
        before[:] = s.value
        start = s.counters[NOW]
        if c.clock >= 0:
            _toggle(c, timing, s, c.clock)
            _advance(c, timing, s, start + hold_ticks)
        for i in range(len(c.inputs)):
            if s.value[c.inputs[i]] != vectors[operation, i]:
                _toggle(c, timing, s, c.inputs[i])
        if c.clock >= 0:
            _advance(c, timing, s, start + cycle_ticks // 2)
            _toggle(c, timing, s, c.clock)
            _advance(c, timing, s, start + cycle_ticks)
        _advance(c, timing, s, -1)
        for net in range(c.nets):
            if s.value[net] != before[net]:
                s.energy[ZERO_DELAY] += settled[net, 0 if s.value[net] else 1]
        for i in range(len(c.outputs)):
            outputs[operation, i] = s.value[c.outputs[i]]
    return s.energy, s.counters[TRANSITIONS], outputs
