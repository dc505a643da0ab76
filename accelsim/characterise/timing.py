"""Static timing of a circuit, and the delays and energies each arc has at its slew and load.

No wires; setup times are the caller's; conditional arcs averaged. Slews are the worst of a net's drivers,
taken at the mean of both edges for the simulation.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from accelsim_kernels.jit import njit

from accelsim.characterise.circuit import CLOCK_GATE, FLIP_FLOP, GATE, LATCH
from accelsim.characterise.netlist import ONE, ZERO

# Clock gates switch this long after the clock: the clock network is ideal.
CLOCK_GATE_PS = 2.0
TICK_PS = 0.25
SHORTEST_PS = 0.5


class Timing(NamedTuple):
    """Per arc and edge of its output (0 rising, 1 falling): ticks, fJ. Passive energies per instance input:
    passive_start[input_start[g] + pin], two per entry of its type."""

    critical_ps: float
    latest_clock_ps: float
    order: np.ndarray  # int32: gates, drivers first
    on_clock: np.ndarray  # uint8[net]
    delay_ticks: np.ndarray  # int32[arc, 2]
    energy_fj: np.ndarray  # float32[arc, 2]
    passive_start: np.ndarray
    passive_fj: np.ndarray  # float32[entry, 2]


@njit(cache=True, nogil=True)
def _interval(axis, x):
    k = 0
    while k < len(axis) - 2 and x > axis[k + 1]:
        k += 1
    return k


@njit(cache=True, nogil=True)
def _look_up(table, slews, loads, slew, load):
    """Bilinear in (slew, load); held at the fastest slew, extrapolated above it and in the load."""
    i, j = _interval(slews, slew), _interval(loads, load)
    a = min(max((slew - slews[i]) / (slews[i + 1] - slews[i]), 0.0), 1.5)
    b = max((load - loads[j]) / (loads[j + 1] - loads[j]), -1.0)
    low = table[i, j] * (1 - b) + table[i, j + 1] * b
    high = table[i + 1, j] * (1 - b) + table[i + 1, j + 1] * b
    return low * (1 - a) + high * a


@njit(cache=True, nogil=True)
def static_timing(c, launch_ps=0.0):
    """Timing of a Circuit: arrival times, order of evaluation, delays and energies of its arcs.

    launch_ps: when inputs change.
    """
    instances = len(c.type_of)
    # [net, edge]: arrival and slew of the rising and the falling edge
    arrival = np.zeros((c.nets, 2))
    slew = np.full((c.nets, 2), c.input_slew_ps)
    for net in c.inputs:
        arrival[net, 0] = arrival[net, 1] = launch_ps
    on_clock = np.zeros(c.nets, np.uint8)
    if c.clock >= 0:
        on_clock[c.clock] = 1
    done = np.zeros(c.nets, np.uint8)
    for net in range(c.nets):
        done[net] = c.driver[net] < 0
    for g in range(instances):
        t = c.type_of[g]
        if c.t_kind[t] == GATE:
            continue
        inputs = c.input_start[g + 1] - c.input_start[g]
        for o in range(c.output_start[g + 1] - c.output_start[g]):
            net = c.output_net[c.output_start[g] + o]
            if net < 0:
                continue
            done[net] = 1
            if c.t_kind[t] == CLOCK_GATE:
                on_clock[net] = 1
                arrival[net, 0] = arrival[net, 1] = CLOCK_GATE_PS
                continue
            arc = c.t_arc_start[t] + o * inputs + c.t_clock_pin[t]
            if c.t_has_arc[arc]:
                for edge in range(2):
                    table = c.t_table[arc]
                    load = c.load_ff[net]
                    arrival[net, edge] = _look_up(table[edge], c.slews_ps, c.loads_ff, c.input_slew_ps, load)
                    slew[net, edge] = _look_up(table[2 + edge], c.slews_ps, c.loads_ff, c.input_slew_ps, load)
    order = np.empty(instances, np.int32)
    waiting = np.zeros(instances, np.int32)
    ready = 0
    for g in range(instances):
        if c.t_kind[c.type_of[g]] == GATE:
            for k in range(c.input_start[g], c.input_start[g + 1]):
                waiting[g] += not done[c.input_net[k]]
            if waiting[g] == 0:
                order[ready] = g
                ready += 1
    head = 0
    while head < ready:
        g = order[head]
        head += 1
        t = c.type_of[g]
        inputs = c.input_start[g + 1] - c.input_start[g]
        for o in range(c.output_start[g + 1] - c.output_start[g]):
            net = c.output_net[c.output_start[g] + o]
            if net < 0:
                continue
            load = c.load_ff[net]
            latest = np.zeros(2)
            worst = np.ones(2)
            for i in range(inputs):
                arc = c.t_arc_start[t] + o * inputs + i
                source = c.input_net[c.input_start[g] + i]
                if not c.t_has_arc[arc] or source == ZERO or source == ONE:
                    continue
                for cause in range(2):
                    for edge in range(2):
                        sense = c.t_sense[arc]
                        if sense != 0 and (sense > 0) != (cause == edge):
                            continue
                        at, sl = arrival[source, cause], slew[source, cause]
                        table = c.t_table[arc]
                        delay = _look_up(table[edge], c.slews_ps, c.loads_ff, sl, load)
                        latest[edge] = max(latest[edge], at + delay)
                        out = _look_up(table[2 + edge], c.slews_ps, c.loads_ff, sl, load)
                        worst[edge] = max(worst[edge], out)
                if on_clock[source]:
                    on_clock[net] = 1
            arrival[net] = latest
            slew[net] = worst
            done[net] = 1
            for k in range(c.fan_start[net], c.fan_start[net + 1]):
                h = c.fan_instance[k]
                if c.t_kind[c.type_of[h]] == GATE:
                    waiting[h] -= 1
                    if waiting[h] == 0:
                        order[ready] = h
                        ready += 1
    critical = 0.0
    for net in c.outputs:
        critical = max(critical, arrival[net, 0], arrival[net, 1])
    latest_clock = 0.0
    for g in range(instances):
        t = c.type_of[g]
        if c.t_kind[t] == FLIP_FLOP or c.t_kind[t] == LATCH:
            net = c.input_net[c.input_start[g] + c.t_data_pin[t]]
            critical = max(critical, arrival[net, 0], arrival[net, 1])
            net = c.input_net[c.input_start[g] + c.t_clock_pin[t]]
            latest_clock = max(latest_clock, arrival[net, 0], arrival[net, 1])
    ticks, energy, starts, passive = _at_operating_point(c, slew, on_clock)
    return Timing(critical, latest_clock, order[:ready], on_clock, ticks, energy, starts, passive)


@njit(cache=True, nogil=True)
def _at_operating_point(c, slew, on_clock):
    instances = len(c.type_of)
    ticks = np.full((c.arc_start[instances], 2), int(1 / TICK_PS), np.int32)
    energy = np.zeros((c.arc_start[instances], 2), np.float32)
    starts = np.zeros(len(c.input_net) + 1, np.int32)
    for g in range(instances):
        t = c.type_of[g]
        for i in range(c.input_start[g + 1] - c.input_start[g]):
            own = c.t_input_start[t] + i
            k = c.input_start[g] + i
            starts[k + 1] = starts[k] + c.t_passive_start[own + 1] - c.t_passive_start[own]
    passive = np.zeros((starts[-1], 2), np.float32)
    for g in range(instances):
        t = c.type_of[g]
        inputs = c.input_start[g + 1] - c.input_start[g]
        for i in range(inputs):
            k = c.input_start[g] + i
            net = c.input_net[k]
            sl = c.input_slew_ps if on_clock[net] else 0.5 * (slew[net, 0] + slew[net, 1])
            for o in range(c.output_start[g + 1] - c.output_start[g]):
                own = o * inputs + i
                out = c.output_net[c.output_start[g] + o]
                arc = c.t_arc_start[t] + own
                if out < 0 or not c.t_has_arc[arc]:
                    continue
                table, load = c.t_table[arc], c.load_ff[out]
                for edge in range(2):
                    delay = _look_up(table[edge], c.slews_ps, c.loads_ff, sl, load)
                    if c.t_kind[t] == CLOCK_GATE:
                        delay = CLOCK_GATE_PS
                    delay = np.float32(max(SHORTEST_PS, delay))
                    ticks[c.arc_start[g] + own, edge] = int(delay / TICK_PS + 0.5)
                    energy[c.arc_start[g] + own, edge] = _look_up(
                        table[4 + edge], c.slews_ps, c.loads_ff, sl, load
                    )
            j = _interval(c.slews_ps, sl)
            share = min(max((sl - c.slews_ps[j]) / (c.slews_ps[j + 1] - c.slews_ps[j]), 0.0), 1.0)
            first = c.t_passive_start[c.t_input_start[t] + i]
            for e in range(starts[k + 1] - starts[k]):
                for edge in range(2):
                    row = c.t_passive_table[first + e, edge]
                    passive[starts[k] + e, edge] = row[j] * (1 - share) + row[j + 1] * share
    return ticks, energy, starts, passive
