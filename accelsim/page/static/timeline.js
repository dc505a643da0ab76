"use strict";
// What everything does when, in spans of equal length (accelsim/page/timeline.py).
function timeline(data, place) {
  const wide = data.cycles / data.spans;
  const middle = (n) => (n + 0.5) * wide;
  const rows = data.pes.length;
  const heat = Math.min(420, Math.max(90, 14 * rows));
  const heights = [26, 96, 96, heat];
  const side = { left: narrow() ? 46 : 62, right: 14 };
  const names = Object.keys(data.lines);
  const states = Object.keys(data.states);
  const top = legendOver(place, [...names, ...states]);
  const tops = [36, 102, 242, 388].map((own) => own + top.height);
  place.style.height = `${tops[3] + heat + 84}px`;
  const span = (n) => `cycles ${shown(Math.round(n * wide))} to ${shown(Math.round((n + 1) * wide))}`;
  const x = (n, more) => ({ type: "value", gridIndex: n, min: 0, max: data.cycles, axisLabel: { show: false }, axisTick: { show: false }, splitLine: { show: false }, ...more });
  const percent = (n, name) => ({ type: "value", gridIndex: n, min: 0, max: 100, splitNumber: 2, name, nameTextStyle: { align: "left", color: INK, padding: [0, 0, 0, -34] }, nameGap: 13, axisLabel: axisText });
  const stacked = {}; // middle of a span, foot and head of its bar, share
  const reached = Array(data.spans).fill(0);
  for (const state of states)
    stacked[state] = data.states[state].map((value, n) => [middle(n), reached[n], (reached[n] += value), value]);
  const steps = (values) => values.map((value, n) => [middle(n), value]);
  return base({
    legend: top.legend,
    grid: tops.map((top, n) => ({
      ...side,
      top,
      height: heights[n],
      tooltip: n === 1 || n === 2 ? { show: true, trigger: "axis" } : undefined,
    })),
    tooltip: {
      trigger: "item",
      formatter: (item) => {
        if (Array.isArray(item))
          return tip(span(item[0].dataIndex), ...item.map((own) => `${own.seriesName}: ${own.value.at(-1)} %`));
        if (item.seriesName === "layers") {
          const [name, start, end] = data.layers[item.dataIndex];
          return tip(name, `cycles ${shown(start)} to ${shown(end)}`, "press for its prices");
        }
        const [n, row, value] = item.value;
        return tip(data.pes[row], span(n), `computes in ${value} % of them`);
      },
    },
    axisPointer: { link: [{ xAxisIndex: [1, 2] }] },
    dataZoom: [
      { type: "inside", xAxisIndex: [0, 1, 2, 3, 4], zoomOnMouseWheel: "ctrl", filterMode: "none" },
      { type: "slider", xAxisIndex: [0, 1, 2, 3, 4], height: 20, bottom: 8, filterMode: "none", showDataShadow: false, labelFormatter: "" },
    ],
    xAxis: [
      x(0),
      x(1),
      x(2),
      {
        type: "category",
        gridIndex: 3,
        data: [...Array(data.spans).keys()],
        axisTick: { show: false },
        axisLabel: { show: false },
      },
      // Under the spans, cycles: round ones, which ends of spans are not.
      x(3, {
        position: "bottom",
        axisTick: { show: true },
        axisLabel: { ...axisText, showMaxLabel: false, formatter: compact },
        name: "cycle",
        nameLocation: "middle",
        nameGap: 24,
        nameTextStyle: { color: INK },
      }),
    ],
    yAxis: [
      { type: "category", gridIndex: 0, data: ["", " "], axisTick: { show: false }, axisLabel: { show: false }, axisLine: { show: false }, name: "layers", nameGap: 7, nameTextStyle: { color: INK, align: "left", padding: [0, 0, 0, -34] } },
      percent(1, "busy, %"),
      percent(2, "PEs, %"),
      { type: "category", gridIndex: 3, data: data.pes, inverse: true, axisTick: { show: false }, axisLabel: { ...axisText, fontSize: 10 }, name: "each PE computes, %", nameTextStyle: { color: INK, align: "left", padding: [0, 0, 0, -34] }, nameGap: 11, nameLocation: "start" },
    ],
    visualMap: { min: 0, max: 100, seriesIndex: 0, orient: "horizontal", right: 8, top: tops[3] - 32, itemWidth: 11, itemHeight: 90, text: ["100", "0"], textGap: 5, textStyle: { color: INK, fontSize: 11 }, inRange: { color: ["#ffffff", "#9ecae1", "#3182bd", "#08306b"] } },
    series: [
      { type: "heatmap", name: "PEs", xAxisIndex: 3, yAxisIndex: 3, progressive: 0, data: data.heat.flatMap((own, row) => own.map((value, n) => [n, row, value])) },
      {
        type: "custom",
        name: "layers",
        xAxisIndex: 0,
        yAxisIndex: 0,
        encode: { x: [1, 2], y: 0 },
        clip: true,
        cursor: "pointer",
        data: data.layers.map(([, start, end], n) => [n % 2, start, end]),
        renderItem: (params, api) => {
          const [left, y] = api.coord([api.value(1), api.value(0)]);
          const [right] = api.coord([api.value(2), api.value(0)]);
          const { x: low, width } = params.coordSys;
          const from = Math.max(left, low);
          const to = Math.min(Math.max(right, left + 1), low + width);
          if (to <= from) return null;
          const style = { fill: params.dataIndex % 2 ? COLOURS[4] : COLOURS[0] };
          return { type: "rect", shape: { x: from, y: y - 6, width: to - from, height: 12 }, style };
        },
      },
      ...names.map((name, n) => ({
        type: "line",
        name,
        xAxisIndex: 1,
        yAxisIndex: 1,
        step: "middle",
        symbol: "circle",
        showSymbol: false,
        lineStyle: { width: 1.5, color: [COLOURS[5], COLOURS[2], INK][n % 3], type: ["solid", "dashed", "dotted"][n % 3] },
        itemStyle: { color: [COLOURS[5], COLOURS[2], INK][n % 3] },
        data: steps(data.lines[name]),
      })),
      ...states.map((state) => ({
        type: "custom",
        name: state,
        xAxisIndex: 2,
        yAxisIndex: 2,
        encode: { x: 0, y: [1, 2] },
        clip: true,
        itemStyle: { color: STATE_COLOURS[state] },
        data: stacked[state],
        renderItem: (params, api) => {
          const n = params.dataIndex;
          const [from, low] = api.coord([n * wide, api.value(1)]);
          const [to, high] = api.coord([(n + 1) * wide, api.value(2)]);
          const left = Math.round(from); // the same whole pixels as the next one's leave no seams
          const shape = { x: left, y: high, width: Math.round(to) - left, height: low - high };
          return { type: "rect", shape, style: { fill: STATE_COLOURS[state] } };
        },
      })),
    ],
    onPress: (item) => item.seriesName === "layers" && show(place, "prices", { layer: data.layers[item.dataIndex][0] }),
  });
}
