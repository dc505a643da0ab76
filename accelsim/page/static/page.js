"use strict";
// Tables to sort and filter, and what ties charts to them. Names from folders are shown as text only.
const blocks = JSON.parse(document.getElementById("data").textContent);
const MOST_ROWS = 250;

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "number") return value;
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e4 && size < 1e15) return Math.round(value).toLocaleString("en-US");
  if (size >= 1e-4 && size < 1e4) return (+value.toPrecision(4)).toLocaleString("en-US", { maximumSignificantDigits: 4 });
  return value.toExponential(3);
}

// `word` is anywhere in a row, `column:a|b` is a or b, `column>1` and `column<1` compare; all must hold.
function termsOf(text) {
  const found = [];
  for (const [term] of text.matchAll(/(?:[^\s"]|"[^"]*")+/g)) {
    const compare = /^([^<>":]+)([<>])(-?[\d.]+(?:e[+-]?\d+)?)$/i.exec(term);
    const exact = /^([^":<>]+):(.*)$/.exec(term);
    const plain = (part) => part.replaceAll('"', "").toLowerCase();
    if (compare) found.push({ column: compare[1], sign: compare[2], limit: Number(compare[3]) });
    else if (exact) found.push({ column: exact[1], values: exact[2].split("|").map(plain) });
    else found.push({ word: plain(term) });
  }
  return found;
}

class Grid {
  constructor(place, block) {
    this.place = place;
    this.columns = block.data.columns.map((column) => ({
      ...column,
      values: column.texts ? column.values.map((code) => column.texts[code]) : column.values,
    }));
    this.whole = { columns: this.columns, rows: block.data.rows };
    this.current = this.whole;
    this.sorted = block.sorted ? { name: block.sorted, down: true } : { name: null, down: false };
    this.all = false;
    this.everyColumn = false;
    this.listeners = [];
    this.layers = block.layers || null;
    this.role = place.dataset.role || "";
    this.build(block.title);
    this.draw();
  }

  build(title) {
    const controls = element("div", { class: "controls" });
    this.search = element("input", {
      type: "search",
      "aria-label": `Filter ${title}`,
      placeholder: "Filter: word, column:value, column>1",
    });
    this.search.addEventListener("input", () => this.draw());
    controls.append(this.search);
    if (this.layers) {
      this.layer = element("select", { "aria-label": "Layer" }, element("option", { value: "-1" }, "whole run"));
      this.layers.names.forEach((name, n) => this.layer.append(element("option", { value: n }, name)));
      this.layer.addEventListener("change", () => this.chooseLayer(Number(this.layer.value)));
      controls.append(this.layer);
    }
    if (this.columns.some((column) => !column.shown)) {
      const box = element("input", { type: "checkbox" });
      box.addEventListener("change", () => {
        this.everyColumn = box.checked;
        this.draw();
      });
      controls.append(element("label", {}, box, ` all ${this.columns.length} columns`));
    }
    this.count = element("span", { class: "count", "aria-live": "polite" });
    this.more = element("button", { type: "button" }, "show all");
    this.more.addEventListener("click", () => {
      this.all = true;
      this.draw();
    });
    controls.append(this.count, this.more);
    this.head = element("thead");
    this.body = element("tbody");
    const table = element("table", {}, this.head, this.body);
    const scroll = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table);
    this.place.append(controls, scroll);
  }

  // Rows of one layer in place of those of the whole run.
  chooseLayer(number) {
    this.layer.value = String(number);
    if (number < 0) this.current = this.whole;
    else {
      const { layer, row, ...own } = this.layers;
      const chosen = [...layer.keys()].filter((n) => layer[n] === number);
      const total = chosen.reduce((sum, n) => sum + own.energy_pj[n], 0);
      const columns = this.columns.map((column) => {
        if (own[column.name]) return { ...column, values: chosen.map((n) => own[column.name][n]) };
        if (column.name === "share_percent")
          return { ...column, values: chosen.map((n) => (total ? (100 * own.energy_pj[n]) / total : 0)) };
        return { ...column, values: chosen.map((n) => column.values[row[n]]) };
      });
      this.current = { columns, rows: chosen.length };
    }
    this.draw();
  }

  filter(text) {
    this.search.value = text;
    this.draw();
  }

  rows() {
    const { columns, rows } = this.current;
    const named = new Map(columns.map((column) => [column.name, column]));
    const terms = termsOf(this.search.value);
    let found = [...Array(rows).keys()].filter((n) =>
      terms.every((term) => {
        if (term.word !== undefined)
          return columns.some((column) => String(column.values[n] ?? "").toLowerCase().includes(term.word));
        const column = named.get(term.column);
        if (!column) return false;
        const value = column.values[n];
        if (term.values) return term.values.includes(String(value ?? "").toLowerCase());
        return value !== null && (term.sign === ">" ? value > term.limit : value < term.limit);
      }),
    );
    const by = named.get(this.sorted.name);
    if (by) {
      const down = this.sorted.down ? -1 : 1;
      const order = (a, b) => {
        const [one, other] = [by.values[a], by.values[b]];
        if (one === other) return a - b;
        if (one === null) return 1; // what is empty stands last, either way
        if (other === null) return -1;
        if (by.text) return down * one.localeCompare(other, "en", { numeric: true });
        return down * (one - other);
      };
      found.sort(order);
    }
    return found;
  }

  draw() {
    const columns = this.current.columns.filter((column) => column.shown || this.everyColumn);
    const found = this.rows();
    const few = this.all ? found : found.slice(0, MOST_ROWS);
    this.count.textContent = `${found.length.toLocaleString("en-US")} of ${this.current.rows.toLocaleString("en-US")} rows`;
    this.more.hidden = few.length === found.length;
    const focused = document.activeElement && document.activeElement.dataset.column;
    const heads = columns.map((column) => {
      const button = element("button", { type: "button", "data-column": column.name }, column.name);
      button.addEventListener("click", () => {
        const again = this.sorted.name === column.name;
        this.sorted = { name: column.name, down: again ? !this.sorted.down : !column.text };
        this.draw();
      });
      const sort = this.sorted.name !== column.name ? "none" : this.sorted.down ? "descending" : "ascending";
      const head = element("th", { scope: "col", "aria-sort": sort }, button);
      if (!column.text) head.className = "number";
      return head;
    });
    const inHead = this.head.contains(document.activeElement);
    this.head.replaceChildren(element("tr", {}, ...heads));
    if (inHead) heads.map((head) => head.firstChild).find((b) => b.dataset.column === focused)?.focus();
    this.body.replaceChildren(...few.map((n) => this.row(columns, n)));
    for (const tell of this.listeners) tell(found);
  }

  row(columns, n) {
    const cells = columns.map((column, place) => {
      const value = column.values[n];
      const cell = element("td", { class: column.text ? "text" : "number" });
      if (!column.text) {
        cell.textContent = shown(value);
        if (value !== null) cell.title = String(value);
      } else if (value.length > 66) {
        cell.append(element("details", {}, element("summary", {}, `${value.slice(0, 32)}…`), value));
      } else if (place === 0 && this.role === "layers") {
        const button = element("button", { type: "button" }, value);
        button.addEventListener("click", () => show(this.place, "prices", { layer: value }));
        cell.append(button);
      } else cell.textContent = value;
      if (value !== null && String(value).length <= (place ? 26 : 40)) cell.classList.add("short");
      if (place === 0) cell.classList.add("first");
      return cell;
    });
    return element("tr", {}, ...cells);
  }
}

const grids = new Map();

// The table with this role in the section that `from` is in, filtered, in view; nothing where there is none.
function show(from, role, { layer, component, terms }) {
  const place = from.closest(".results").querySelector(`:scope > .block .grid[data-role="${role}"]`);
  const grid = place && grids.get(place);
  if (!grid) return;
  if (grid.layers) grid.chooseLayer(layer === undefined ? -1 : grid.layers.names.indexOf(layer));
  grid.filter(terms !== undefined ? terms : component ? `component:"${component}"` : "");
  const block = place.closest(".block");
  if (block.tagName === "DETAILS") block.open = true;
  block.scrollIntoView({ behavior: "auto", block: "start" });
  grid.search.focus({ preventScroll: true });
}

for (const place of document.querySelectorAll(".grid")) grids.set(place, new Grid(place, blocks[place.dataset.block]));
for (const button of document.querySelectorAll(".tiles button"))
  button.addEventListener("click", () => show(button, button.dataset.role, { terms: button.dataset.filter }));

// A link to a part that is folded opens it.
for (const link of document.querySelectorAll(".contents a"))
  link.addEventListener("click", () => {
    const block = document.querySelector(link.getAttribute("href"));
    if (block.tagName === "DETAILS") block.open = true;
  });

// Charts are drawn when they come near the screen, which those in a closed part do not.
const near = new IntersectionObserver(
  (entries) => {
    for (const entry of entries)
      if (entry.isIntersecting) {
        near.unobserve(entry.target);
        drawChart(entry.target);
      }
  },
  { rootMargin: "300px" },
);
for (const place of document.querySelectorAll(".chart")) near.observe(place);
