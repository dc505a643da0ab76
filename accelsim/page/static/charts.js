"use strict";
// One function a kind of chart: from the data of a block to an option of ECharts; others are in chosen.js.
// Colours of Okabe and Ito (2008), which most kinds of colour blindness tell apart; grey is for the rest.
const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#8c8c8c"];
const INK = "#333";
// What cycles go to looks the same in every chart.
const STATE_COLOURS = { compute: COLOURS[0], bubble: COLOURS[4], "output wait": COLOURS[2], "weight wait": COLOURS[1], "input wait": COLOURS[5], drain: COLOURS[3], idle: "#c9c9c9" };

const narrow = () => window.innerWidth < 600;

function compact(value) {
  const size = Math.abs(value);
  for (const [limit, sign] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= limit) return `${+(value / limit).toPrecision(3)}${sign}`;
  return String(+value.toPrecision(3));
}

// A tooltip of texts: the first is bold. Elements, not markup, so that names stay names.
function tip(first, ...lines) {
  return element("div", { class: "tip" }, element("b", {}, first), ...lines.map((line) => element("div", {}, line)));
}

function base(extra) {
  return {
    animation: false,
    color: COLOURS,
    textStyle: { fontFamily: "system-ui, sans-serif", color: INK, fontSize: narrow() ? 11 : 12 },
    ...extra,
    tooltip: { confine: true, transitionDuration: 0, textStyle: { color: "#1a1a1a" }, ...extra.tooltip },
  };
}

// A legend in as many lines as its names take, and its height in pixels; of very many names one line to scroll.
function legendOver(place, names) {
  const widest = Math.max(120, place.clientWidth - 10);
  let [lines, reached] = [1, 0];
  for (const name of names) {
    const width = 16 + 5 + widthOf([cut(name, 40)], 12) - 4;
    if (reached && reached + width > widest) [lines, reached] = [lines + 1, 0];
    reached += width;
  }
  const scroll = lines > (narrow() ? 7 : 4);
  const legend = { data: names, formatter: (name) => cut(name, 40), type: scroll ? "scroll" : "plain", show: names.length > 1, top: 0, left: 0, right: 0, itemWidth: 16, itemHeight: 11, itemGap: 10 };
  return { legend, height: names.length > 1 ? (scroll ? 1 : lines) * 22 + 8 : 0 };
}

const axisText = { color: INK, hideOverlap: true };
// Names of layers differ at their ends, those of components and families at their beginnings.
const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const cutFront = (text, most) => (text.length > most ? `…${text.slice(1 - most)}` : text);

// Room in pixels for names beside an axis.
function widthOf(names, size) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = `${size}px system-ui, sans-serif`;
  return Math.ceil(Math.max(...names.map((name) => context.measureText(name).width)) * 1.06) + 14;
}

function bars(data, place) {
  const many = data.names.length;
  const across = data.across;
  const length = narrow() ? 14 : across ? 30 : 18;
  const few = narrow() ? 18 : 60; // names that fit
  const label = (name) => (across ? cut : cutFront)(name, length);
  const category = {
    type: "category",
    data: data.names,
    inverse: across,
    axisTick: { show: false },
    axisLabel: {
      ...axisText,
      hideOverlap: false,
      interval: across ? 0 : Math.ceil(many / few) - 1,
      rotate: across || data.names.reduce((sum, name) => sum + widthOf([label(name)], 12), 0) < place.clientWidth - 60 ? 0 : 60,
      fontSize: narrow() || many > 20 ? 10.5 : 12,
      formatter: label,
    },
  };
  const value = {
    type: "value",
    name: data.unit,
    nameLocation: across ? "middle" : "end",
    nameGap: across ? 28 : 10,
    splitNumber: across && narrow() ? 3 : 5,
    nameTextStyle: { align: across ? "center" : "left", color: INK },
    // No second prefix on a unit that has one.
    axisLabel: { ...axisText, formatter: data.unit === "cycles" ? compact : shown },
  };
  if (across) place.style.height = `${90 + 21 * many}px`;
  else if (many > 20) place.style.height = "440px";
  const sums = data.names.map((_, n) => data.series.reduce((sum, own) => sum + (own.values[n] || 0), 0));
  const total = sums.reduce((sum, own) => sum + own, 0);
  const series = data.series.map((own, n) => ({
    type: "bar",
    name: own.name,
    data: own.values,
    stack: data.side_by_side ? undefined : "all",
    barMaxWidth: 46,
    barGap: "0%",
    itemStyle: { color: (data.states && STATE_COLOURS[own.name]) || (own.name === "smaller parts" ? COLOURS[7] : COLOURS[n % COLOURS.length]) },
    cursor: data.link ? "pointer" : "default",
    label: across ? { show: true, position: "right", color: INK, fontSize: 11, formatter: (item) => (item.value ? shown(item.value) : "") } : undefined,
  }));
  if (data.totals)
    series.push({
      type: "bar",
      name: "total",
      stack: "all",
      data: sums.map(() => 0),
      silent: true,
      label: { show: true, position: "top", color: INK, formatter: (item) => shown(sums[item.dataIndex]) },
    });
  if (data.published && data.published.length)
    for (const own of data.series)
      series.push({
        type: "custom",
        name: `${own.name}, published`,
        itemStyle: { color: INK },
        encode: { x: 0, y: 1 },
        data: data.published
          .filter((point) => point[1] === own.name)
          .map((point) => ({ value: [point[0], point[2]], said: point })),
        renderItem: diamondAt(data.series.indexOf(own), data.series.length),
        z: 5,
      });
  const top = legendOver(place, data.series.map((own) => own.name));
  return base({
    legend: top.legend,
    grid: {
      left: across ? widthOf(data.names.map(label), 12) : 8,
      right: across ? widthOf(["0.0000"], 11) : 14, // room for the longest bar's value
      top: top.height + (across ? 4 : 28),
      bottom: across ? 48 : many > 20 ? 40 : 10,
      containLabel: !across,
    },
    tooltip: {
      trigger: "item",
      formatter: (item) => {
        if (item.data && item.data.said) {
          const [kind, scheme, saved, ...lines] = item.data.said;
          return tip(`published, ${scheme}: ${shown(saved)} % (${kind})`, ...lines);
        }
        const n = item.dataIndex;
        const whole = data.side_by_side ? [] : across ? [total] : [sums[n]];
        const share = whole.map((own) => `${shown((100 * item.value) / own)} % of ${shown(own)} ${data.unit}`);
        const hint = data.link ? [data.target ? "press for its row" : "press for its prices"] : [];
        return tip(data.names[n], `${item.seriesName}: ${shown(item.value)} ${data.unit}`, ...share, ...hint);
      },
    },
    dataZoom: !across && many > 20 ? [{ type: "inside", zoomOnMouseWheel: "ctrl" }, { type: "slider", height: 20, bottom: 6 }] : [],
    xAxis: across ? value : category,
    yAxis: across ? category : value,
    series,
    onPress: (item) => {
      if (!data.link || item.dataIndex === undefined) return;
      const name = data.names[item.dataIndex];
      const component = data.link === "component" ? name : item.seriesName;
      const known = blocksHave(place, component);
      show(place, data.target || "prices", data.link === "layer" ? { layer: name, component: known ? component : "" } : { component });
    },
  });
}

// Whether a series is named after a component: those of stall reasons are not.
function blocksHave(place, name) {
  const grid = grids.get(place.closest(".results").querySelector(':scope > .block .grid[data-role="prices"]'));
  return Boolean(grid) && grid.columns.find((column) => column.name === "component").values.includes(name);
}

// A mark in the middle of the bar of a series in its group of bars.
function diamondAt(number, count) {
  return (params, api) => {
    const [x, y] = api.coord([api.value(0), api.value(1)]);
    const group = Math.min(46 * count, api.size([1, 0])[0] * 0.8);
    const middle = x + group * ((number + 0.5) / count - 0.5);
    const size = narrow() ? 4 : 6;
    const points = [[middle, y - size], [middle + size, y], [middle, y + size], [middle - size, y]];
    return { type: "polygon", shape: { points }, style: { fill: "#fff", stroke: INK, lineWidth: 2 } };
  };
}

function roofline(data, place) {
  const ridge = data.peak / data.bytes_per_cycle;
  const known = data.points.map((point) => point[2]).filter((value) => value !== null);
  const edge = 4 * Math.max(ridge, ...known);
  const least = Math.min(ridge, ...known) / 2;
  const bounds = [...new Set(data.points.map((point) => point[1]))].sort();
  const symbols = ["circle", "diamond", "triangle", "rect", "pin", "arrow"];
  const lowest = Math.min(...data.points.map((point) => point[3]));
  const power = (value) => 10 ** Math.floor(Math.log10(value));
  const whole = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
  const log = { type: "log", axisLabel: { ...axisText, formatter: (value) => (whole(value) ? compact(value) : "") }, nameTextStyle: { color: INK }, minorSplitLine: { show: false } };
  const words = (bound) => `bound by ${bound === "dram" ? "DRAM" : bound.replaceAll("_", " ")}`;
  const top = legendOver(place, bounds.map(words));
  return base({
    legend: { ...top.legend, show: true },
    grid: { left: 8, right: 24, top: Math.max(30, top.height) + 28, bottom: 30, containLabel: true },
    tooltip: {
      trigger: "item",
      formatter: (item) => {
        if (!item.data.said) return "";
        const [name, bound, intensity, achieved] = item.data.said;
        const roof = intensity === null ? data.peak : Math.min(data.peak, intensity * data.bytes_per_cycle);
        return tip(
          name,
          `${shown(achieved)} operations a cycle, ${shown((100 * achieved) / roof)} % of its roof`,
          intensity === null ? "no DRAM traffic" : `${shown(intensity)} operations a DRAM byte`,
          words(bound),
          "press for its prices",
        );
      },
    },
    xAxis: { ...log, name: "operations a DRAM byte", nameLocation: "middle", nameGap: 28, min: power(least), max: edge * 1.6 },
    yAxis: { ...log, name: "operations a cycle", nameTextStyle: { align: "left", color: INK }, min: power(lowest), max: data.peak * 2 },
    series: [
      {
        type: "line",
        name: "roof",
        symbol: "none",
        silent: true,
        lineStyle: { color: INK, width: 1.5 },
        data: [[power(least), power(least) * data.bytes_per_cycle], [ridge, data.peak], [edge * 1.6, data.peak]],
        markPoint: {
          symbol: "rect",
          symbolSize: 0.01,
          label: { formatter: `peak ${shown(data.peak)}`, position: "top", align: "right", color: INK },
          data: [{ coord: [edge * 1.5, data.peak] }],
        },
      },
      ...bounds.map((bound, n) => ({
        type: "scatter",
        name: words(bound),
        symbol: symbols[n % symbols.length],
        symbolSize: 10,
        itemStyle: { color: COLOURS[n % COLOURS.length], borderColor: "#fff", borderWidth: 1, opacity: 0.9 },
        data: data.points
          .filter((point) => point[1] === bound)
          .map((point) => ({ value: [point[2] === null ? edge : point[2], point[3]], said: point })),
      })),
    ],
    onPress: (item) => item.data && item.data.said && show(place, "prices", { layer: item.data.said[0] }),
  });
}

function ratios(data, place) {
  const families = [...new Set(data.points.map((point) => point[0]))];
  place.style.height = `${110 + 34 * families.length}px`;
  const values = data.points.map((point) => point[2]);
  const label = (name) => cut(name, narrow() ? 16 : 40);
  return base({
    legend: { show: false },
    grid: { left: widthOf(families.map(label), 12), right: 24, top: 20, bottom: 48 },
    tooltip: { trigger: "item", formatter: (item) => tip(`${item.data.said[1]}: ${shown(item.data.said[2])}`, ...item.data.said.slice(3)) },
    xAxis: {
      type: "log",
      logBase: 2,
      min: 2 ** Math.floor(Math.log2(Math.min(0.2, ...values))),
      max: 2 ** Math.ceil(Math.log2(Math.max(5, ...values))),
      name: "modelled over published",
      nameLocation: "middle",
      nameGap: 28,
      nameTextStyle: { color: INK },
      axisLabel: { ...axisText, formatter: (value) => String(+value.toPrecision(3)) },
    },
    yAxis: { type: "category", data: families, inverse: true, axisTick: { show: false }, splitLine: { show: true }, axisLabel: { ...axisText, formatter: label } },
    series: [
      {
        type: "scatter",
        symbolSize: 11,
        itemStyle: { color: COLOURS[0], opacity: 0.75, borderColor: "#fff", borderWidth: 1 },
        cursor: "pointer",
        data: data.points.map((point) => ({ value: [point[2], point[0]], said: point })),
        markLine: { symbol: "none", silent: true, lineStyle: { color: INK, type: "dashed" }, label: { show: false }, data: [{ xAxis: 1 }] },
      },
    ],
    onPress: (item) => item.data && item.data.said && show(place, "figures", { terms: `id:"${item.data.said[1]}"` }),
  });
}

const KINDS = { bars, roofline, timeline, ratios, pareto, bits, tornado };

function drawChart(place) {
  const { kind, data, title } = blocks[place.dataset.block];
  let chart = null;
  let press = null;
  const draw = (option) => {
    if (!chart) chart = echarts.init(place);
    press = option.onPress;
    delete option.onPress;
    chart.setOption(option, true);
    if (chart.getHeight() !== place.clientHeight) chart.resize(); // as many rows as it now has
  };
  const first = KINDS[kind](data, place, draw);
  draw(first);
  chart.on("click", (item) => press && press(item));
  place.setAttribute("aria-label", `${title}. Its numbers are in the tables of this section.`);
  let width = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth === width || !place.clientWidth) return;
    width = place.clientWidth;
    if (place.redraw) place.redraw();
    else draw(KINDS[kind](data, place, draw));
    chart.resize();
  }).observe(place);
}
