"use strict";
// Charts of a table's rows of which the reader chooses what is drawn; the table's filter chooses, too.

// The table with this role in the section that a chart is in, and the values of its columns by name.
function tableOf(place, role) {
  const grid = grids.get(place.closest(".results").querySelector(`:scope > .block .grid[data-role="${role}"]`));
  return [grid, (name) => grid.columns.find((own) => own.name === name)];
}

// A choice above a chart; options: [value, text].
function choice(controls, label, options, value, changed) {
  const select = element("select", { "aria-label": label });
  for (const [own, text] of options) select.append(element("option", { value: own }, text));
  select.value = value;
  select.addEventListener("change", changed);
  controls.append(element("label", {}, `${label}: `, select));
  return select;
}

// A term of the filter, where a name can be one: quotes have none of their own.
const termOf = (column, name) => (/["|]/.test(name) ? "" : `${column}:"${name}"`);

// Indices of points that no other is better than in one figure and at least as good in the other.
function frontOf(points) {
  const order = [...points.keys()].sort((a, b) => points[a][0] - points[b][0] || points[a][1] - points[b][1]);
  const found = [];
  let best = Infinity;
  let last = null;
  for (const n of order) {
    const [x, y] = points[n];
    if (y < best || (last && x === last[0] && y === last[1])) {
      found.push(n);
      best = Math.min(best, y);
      last = points[n];
    }
  }
  return found;
}

// Draws again what `option` makes of the rows that the table's filter leaves, now and whenever it changes.
function ofRows(place, grid, draw, option) {
  let rows = grid.rows();
  place.redraw = () => draw(option(rows));
  grid.listeners.push((found) => {
    if (grid.search.value && grid.search.value === place.pressed) return; // a press on it leaves it as it is
    rows = found;
    place.redraw();
  });
  return option(rows);
}

function pareto(data, place, draw) {
  const [grid, column] = tableOf(place, "points");
  const redraw = () => place.redraw();
  const controls = element("div", { class: "controls" });
  const networks = [...new Set(column("network").values)];
  const options = [...networks.map((own) => [own, own]), ["", "all together"]];
  const network = networks.length > 1 && choice(controls, "network", options, networks[0], redraw);
  const chosen = {};
  for (const axis of ["x", "y"]) {
    const more = element("input", { type: "checkbox" });
    const changed = () => {
      more.checked = data.more.includes(select.value);
      redraw();
    };
    const select = choice(controls, axis, data.figures.map((own) => [own, own]), data[axis], changed);
    select.setAttribute("aria-label", `Figure along ${axis}`);
    more.checked = data.more.includes(select.value);
    more.addEventListener("change", redraw);
    chosen[axis] = { select, more };
    controls.append(element("label", {}, more, " more is better"));
  }
  place.before(controls);
  return ofRows(place, grid, draw, (rows) => {
    const [x, y] = ["x", "y"].map((axis) => column(chosen[axis].select.value));
    const sign = (axis) => (chosen[axis].more.checked ? -1 : 1);
    const errors = column("error").values;
    const of = column("network").values;
    const known = rows.filter(
      (n) => !errors[n] && x.values[n] !== null && y.values[n] !== null && (!network || !network.value || of[n] === network.value),
    );
    const best = frontOf(known.map((n) => [sign("x") * x.values[n], sign("y") * y.values[n]])).map((n) => known[n]);
    const schemes = [...new Set(column("scheme").values)];
    const texts = grid.columns.filter((own) => own.shown && own.name !== "error");
    const axis = (own) => ({ type: "value", scale: true, name: own.name, nameTextStyle: { color: INK, align: "left" }, axisLabel: { ...axisText, formatter: compact } });
    const symbols = ["circle", "diamond", "triangle", "rect"];
    const top = legendOver(place, ["front", ...schemes.slice(0, 60)]);
    return base({
      legend: top.legend,
      grid: { left: 8, right: 24, top: top.height + 28, bottom: 34, containLabel: true },
      tooltip: {
        trigger: "item",
        formatter: (item) => (item.data.row === undefined ? "" : tip(best.includes(item.data.row) ? "on the front" : "not on the front", ...texts.map((own) => `${own.name}: ${shown(own.values[item.data.row])}`))),
      },
      xAxis: { ...axis(x), nameLocation: "middle", nameGap: 28, nameTextStyle: { color: INK } },
      yAxis: axis(y),
      series: [
        {
          type: "line",
          name: "front",
          step: "end",
          symbol: "circle", // a ring around each point, since the front may be one point
          symbolSize: 17,
          silent: true,
          itemStyle: { color: "transparent", borderColor: INK, borderWidth: 1.5 },
          lineStyle: { color: INK, width: 1.5 },
          data: best.map((n) => [x.values[n], y.values[n]]),
        },
        ...schemes.map((scheme, n) => ({
          type: "scatter",
          name: scheme,
          symbol: symbols[Math.floor(n / 7) % 4],
          symbolSize: 10,
          itemStyle: { color: COLOURS[n % 7], borderColor: "#555", borderWidth: 0.5, opacity: 0.9 },
          data: known.filter((row) => column("scheme").values[row] === scheme).map((row) => ({ value: [x.values[row], y.values[row]], row })),
        })),
      ],
    });
  });
}

// How many values of each layer take how many bits, of one quantity. Colours are decades of the share, so that
// the few values that decide a width are seen.
const DECADES = [[0.1, "≥ 10 %"], [0.01, "≥ 1 %"], [0.001, "≥ 0.1 %"], [0.0001, "≥ 0.01 %"], [0, "less"]];
const SHADES = ["#08306b", "#08519c", "#2e7ebc", "#74b2d8", "#b7d4ea"];

function bits(data, place, draw) {
  const [grid, column] = tableOf(place, "histograms");
  const [layers, quantities, widths, counts] = ["layer", "quantity", "bits", "count"].map((name) => column(name).values);
  const order = [...new Set(layers)];
  const known = [...new Set(quantities)];
  const first = known.includes(data.quantity) ? data.quantity : known[0];
  const controls = element("div", { class: "controls" });
  const options = known.map((own) => [own, data.said[own] ? `${own}: ${data.said[own][0]}` : own]);
  const quantity = choice(controls, "quantity", options, first, () => place.redraw());
  place.before(controls);
  return ofRows(place, grid, draw, (rows) => {
    const of = new Map();
    for (const n of rows)
      if (quantities[n] === quantity.value && counts[n]) {
        if (!of.has(layers[n])) of.set(layers[n], new Map());
        of.get(layers[n]).set(widths[n], counts[n]);
      }
    const lines = order.filter((name) => of.has(name)).map((name) => [name, of.get(name)]);
    if (lines.length > 1) {
      const all = new Map();
      for (const [, own] of lines) for (const [width, count] of own) all.set(width, (all.get(width) || 0) + count);
      lines.unshift([`all ${lines.length} layers`, all]);
    }
    const found = lines.flatMap(([, own]) => [...own.keys()]);
    const marked = quantity.value === data.quantity;
    const least = Math.min(...found);
    const most = Math.max(...found, marked ? data.accumulator_bits : 0);
    const names = found.length ? [...Array(most - least + 1).keys()].map((n) => String(n + least)) : [];
    const label = (text) => cutFront(text, narrow() ? 19 : 30);
    const cells = lines.flatMap(([name, own], line) => {
      const total = [...own.values()].reduce((sum, count) => sum + count, 0);
      return [...own].map(([width, count]) => {
        const wider = [...own].reduce((sum, [other, more]) => sum + (other > width ? more : 0), 0);
        const share = count / total;
        const shade = DECADES.findIndex(([from]) => share >= from);
        return { value: [width - least, line, shade], said: { name, width, count, total, share, wider }, layer: line || lines.length === 1 ? name : null };
      });
    });
    place.style.height = `${150 + Math.max(40, Math.min(1600, 17 * lines.length))}px`;
    const unit = (data.said[quantity.value] || ["", "bits"])[1];
    return base({
      grid: { left: widthOf(["", ...lines.map(([name]) => label(name))], 11), right: 18, top: 64, bottom: 50 },
      tooltip: {
        trigger: "item",
        formatter: (item) => {
          const { name, width, count, total, share, wider } = item.data.said;
          return tip(
            `${name}: ${width} bits`,
            `${shown(count)} of ${shown(total)} values, ${shown(100 * share)} %`,
            wider ? `${shown(wider)} of them take more, ${shown((100 * wider) / total)} %` : "none takes more",
            "press for its rows",
          );
        },
      },
      visualMap: {
        type: "piecewise",
        dimension: 2,
        categories: DECADES.map((_, n) => n),
        inRange: { color: SHADES },
        formatter: (n) => (DECADES[n] || ["", ""])[1] + (n || narrow() ? "" : " of the layer's values"),
        orient: "horizontal",
        left: 0,
        top: 0,
        itemWidth: 14,
        itemHeight: 11,
        itemGap: narrow() ? 5 : 12,
        textStyle: { fontSize: narrow() ? 11 : 12, color: INK },
      },
      xAxis: {
        type: "category",
        data: names,
        name: unit,
        nameLocation: "middle",
        nameGap: 27,
        nameTextStyle: { color: INK },
        axisTick: { show: false },
        axisLabel: { ...axisText, hideOverlap: false },
      },
      yAxis: {
        type: "category",
        data: lines.map((_, n) => n),
        inverse: true,
        axisTick: { show: false },
        axisLabel: { ...axisText, fontSize: 11, formatter: (n) => label(lines[n][0]) },
      },
      series: [
        {
          type: "heatmap",
          name: "values",
          progressive: 0,
          cursor: "pointer",
          itemStyle: { borderColor: "#fff", borderWidth: 1 },
          data: cells,
          markLine: {
            symbol: "none",
            silent: true,
            lineStyle: { color: COLOURS[5], type: "dashed", width: 1.5 },
            label: { formatter: `accumulator, ${data.accumulator_bits} bits`, color: INK, position: "start", align: "right" },
            data: marked && found.length && data.accumulator_bits >= least ? [{ xAxis: data.accumulator_bits - least }] : [],
          },
        },
      ],
      onPress: (item) => {
        if (!item.data || !item.data.said) return;
        const terms = [`quantity:${quantity.value}`, `bits:${item.data.said.width}`];
        if (item.data.layer !== null) terms.unshift(termOf("layer", item.data.layer));
        place.pressed = terms.join(" ").trim();
        show(place, "histograms", { terms: place.pressed });
      },
    });
  });
}

// A bar a parameter from one end of it to the other, the longest on top; the line is the figure as it is set.
function tornado(data, place, draw) {
  const [grid, column] = tableOf(place, data.role);
  const values = (name) => column(name).values;
  const controls = element("div", { class: "controls" });
  const selects = data.by.map((name) => {
    const options = [...new Set(values(name))];
    const first = options.includes(data.first[name]) ? data.first[name] : options[0];
    return [name, choice(controls, name, options.map((own) => [own, own]), first, () => place.redraw())];
  });
  place.before(controls);
  const ends = [["low", COLOURS[0]], ["high", COLOURS[1]]];
  const said = (n, end, whole) => {
    const own = values(data[`${end}_is`])[n];
    if (own === null || own === "") return "";
    if (typeof own !== "number") return own.slice(own.indexOf("=") + 1);
    const of = values(data.of)[n];
    return of === "factor" ? `× ${shown(own)}` : `${whole ? `${of.replaceAll("_", " ")} ` : ""}${shown(own)}`;
  };
  return ofRows(place, grid, draw, (rows) => {
    const own = rows
      .filter((n) => selects.every(([name, select]) => values(name)[n] === select.value))
      .map((n) => {
        const [low, high, set] = ["low", "high", "as_set"].map((key) => values(data[key])[n]);
        return { n, name: String(values(data.name)[n]), low, high, set, moves: Math.max(low, high, set) - Math.min(low, high, set) };
      })
      .sort((a, b) => b.moves - a.moves || a.n - b.n);
    const label = (text) => cut(text, narrow() ? 14 : 30);
    const short = (text) => cut(text, narrow() ? 12 : 28);
    const [left, right] = [widthOf(["", ...own.map((bar) => label(bar.name))], 12), 16];
    const most = Math.max(...own.flatMap((bar) => [bar.low, bar.high, bar.set]));
    const least = Math.min(...own.flatMap((bar) => [bar.low, bar.high, bar.set]));
    // The axis goes as far as what is written at the ends of bars: how far that is depends on its scale.
    const texts = own.flatMap((bar) => ends.filter(([end]) => sideOf(bar, end)).map(([end]) => [sideOf(bar, end), bar[end], widthOf([short(said(bar.n, end))], 11)]));
    let [from, to] = [least - 1e-9 * Math.abs(least) - 1e-12, most + 1e-9 * Math.abs(most) + 1e-12];
    for (let again = 0; again < 20; again++) {
      const pixel = (to - from) / Math.max(120, place.clientWidth - left - right);
      for (const [side, value, width] of texts)
        if (side < 0) from = Math.min(from, value - width * pixel);
        else to = Math.max(to, value + width * pixel);
    }
    const legend = legendOver(place, ends.map(([end]) => `${end} end`));
    place.style.height = `${legend.height + 70 + 38 * Math.max(1, own.length)}px`;
    const unit = data.unit || (selects.length ? selects[0][1].value : "");
    return base({
      legend: legend.legend,
      grid: { left, right, top: legend.height + 14, bottom: 50 },
      tooltip: {
        trigger: "item",
        formatter: (item) => {
          const bar = own[item.dataIndex];
          const why = data.why ? [values(data.why)[bar.n]] : [];
          const line = (end) => `${end} end${said(bar.n, end, true) && `, ${said(bar.n, end, true)}`}: ${shown(bar[end])} ${data.short_unit}`;
          return tip(bar.name, ...ends.map(([end]) => line(end)), `${data.set}: ${shown(bar.set)} ${data.short_unit}`, `moves ${shown(bar.moves)} ${data.points}`, ...why, "press for its row");
        },
      },
      xAxis: {
        type: "value",
        min: own.length ? from : 0,
        max: own.length ? to : 1,
        splitLine: { showMinLine: false, showMaxLine: false },
        name: narrow() ? cut(unit, 44) : unit,
        nameLocation: "middle",
        nameGap: 28,
        nameTextStyle: { color: INK },
        axisLabel: { ...axisText, showMinLabel: false, showMaxLabel: false, formatter: shown },
      },
      yAxis: { type: "category", data: own.map((_, n) => n), inverse: true, axisLine: { show: false }, axisTick: { show: false }, axisLabel: { ...axisText, interval: 0, formatter: (n) => label(own[n].name) } },
      series: ends.map(([end, colour], number) => ({
        type: "custom",
        name: `${end} end`,
        itemStyle: { color: colour },
        cursor: "pointer",
        encode: { x: [1, 2], y: 0 },
        data: own.map((bar, n) => [n, bar.set, bar[end]]),
        renderItem: (params, api) => {
          const bar = own[params.dataIndex];
          const [from, y] = api.coord([bar.set, params.dataIndex]);
          const [to] = api.coord([bar[end], params.dataIndex]);
          const thick = Math.min(22, api.size([0, 1])[1] * 0.6);
          const children = [{ type: "rect", shape: { x: Math.min(from, to), y: y - thick / 2, width: Math.abs(to - from), height: thick }, style: { fill: colour } }];
          const side = sideOf(bar, end);
          if (side)
            children.push({
              type: "text",
              style: { text: short(said(bar.n, end)), x: to + 5 * side, y, align: side < 0 ? "right" : "left", verticalAlign: "middle", fill: INK, fontSize: 11, fontFamily: "system-ui, sans-serif" },
              silent: true,
            });
          // Of two ends on one side the nearer lies on top.
          for (const own of children) own.z2 = Math.abs(bar[end] - bar.set) < Math.abs(bar[other(end)] - bar.set) ? 2 : 1;
          return { type: "group", children };
        },
        markLine:
          number || !own.length
            ? undefined
            : { symbol: "none", silent: true, lineStyle: { color: INK, type: "solid", width: 1 }, label: { show: false }, data: [{ xAxis: own[0].set }] },
      })),
      onPress: (item) => {
        const terms = [termOf(data.name, own[item.dataIndex].name), ...selects.map(([name, select]) => termOf(name, select.value))];
        place.pressed = terms.join(" ").trim();
        show(place, data.role, { terms: place.pressed });
      },
    });
  });
}

// Where a bar's end is written: left or right of it, nowhere (0) if it does not move or the other end is beyond.
function sideOf(bar, end) {
  const own = bar[end] - bar.set;
  const against = bar[other(end)] - bar.set;
  const beyond = Math.abs(against) > Math.abs(own) || (against === own && end === "high");
  return Math.sign(against) === Math.sign(own) && beyond ? 0 : Math.sign(own);
}

const other = (end) => (end === "low" ? "high" : "low");
