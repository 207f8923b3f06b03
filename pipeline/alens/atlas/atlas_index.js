// Colours the grid of an atlas by the figure that is chosen, and finds the heads that write a token.
// Text of tokens and rows only ever becomes text (textContent), never markup.

const atlas = await heldData();
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const at = (id) => document.getElementById(id);
const cells = [...document.querySelectorAll(".cell")];

// The ends of the colours: shares of the heads that lie below and above them, so that one head does not paint all others alike.
const ENDS = [0.02, 0.98];

function number(value) {  // three digits that count, or fewer
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 0.01 ? value.toFixed(2) : size >= 0.001 ? value.toFixed(3) : value < 0 ? "-0" : "0";
}

function paint() {
  const figure = atlas.figures[at("figure").selectedIndex];
  const known = figure.values.filter((value) => value !== null).sort((a, b) => a - b);
  let [low, high] = ENDS.map((share) => quantile(known, share));
  const signed = low < 0 && high > 0;
  if (signed) { high = Math.max(high, -low); low = -high; }
  const stops = ramps()[signed ? "part" : "rise"];
  cells.forEach((cell, place) => {
    const value = figure.values[place];
    cell.classList.toggle("outlier", value !== null && (value < low || value > high));
    cell.querySelector(".value").textContent = value === null ? "–" : number(value);
    const rgb = value === null ? null : colour(high > low ? (value - low) / (high - low) : 0.5, stops);
    cell.style.background = rgb ? `rgb(${rgb})` : "";
    cell.style.color = rgb ? ink(rgb) : "";
  });
  at("meaning").textContent = `${figure.meaning} Colours end at the 2nd and 98th percentile of the heads; what lies beyond is underlined.`;
  at("low").textContent = number(low);
  at("high").textContent = number(high);
  at("scale").style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  at("legend").hidden = false;
}

for (const figure of atlas.figures) at("figure").add(new Option(figure.title));
dark.addEventListener("change", paint);

// ---- Which heads write a token? The index stands in scripts beside this page, each loaded when it is needed.

const loading = {};
function load(name) {
  loading[name] ??= new Promise((loaded, failed) => {
    const script = document.createElement("script");
    script.src = `tokens/${name}.js`;
    script.addEventListener("load", () => loaded(window.alensAtlas));
    script.addEventListener("error", () => failed(new Error(`tokens/${name}.js is missing`)));
    document.head.append(script);
  });
  return loading[name];
}

const TOKENS_A_FILE = atlas.tokens_a_file;
const MOST_MATCHES = 24;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "\\n").replaceAll("\t", "\\t").replaceAll("\r", "\\r") || "(nothing)";
}
const signed = (hundredths) => `${hundredths < 0 ? "" : "+"}${(hundredths / 100).toFixed(2)}`;

// Tokens whose text is what was typed, with or without a space; then those that begin so, then those that hold it.
function matching(names, typed) {
  const asked = typed.trim().toLowerCase();
  const classes = [[], [], [], []];
  names.forEach((name, token) => {
    const bare = name.trim().toLowerCase();
    if (name === typed || name === ` ${typed}`) classes[0].push(token);
    else if (bare === asked) classes[1].push(token);
    else if (bare.startsWith(asked)) classes[2].push(token);
    else if (asked.length > 2 && bare.includes(asked)) classes[3].push(token);
  });
  classes[0].sort((a, b) => names[b].length - names[a].length);
  for (const rest of classes.slice(1)) rest.sort((a, b) => names[a].length - names[b].length);
  return classes.flat();
}

async function offer() {
  const typed = at("asked").value, offered = at("matches");
  if (!typed.trim()) return offered.replaceChildren();
  const { names } = await load("names");
  if (typed !== at("asked").value) return;  // something else was typed meanwhile
  const tokens = matching(names, typed);
  offered.replaceChildren(...tokens.slice(0, MOST_MATCHES).map((token) => {
    const button = make("button", { type: "button", class: "word", "data-token": token }, visible(names[token]));
    button.addEventListener("click", () => choose({ token }));
    return button;
  }));
  if (!tokens.length) offered.append("No token of this model holds this text.");
  else if (tokens.length > MOST_MATCHES) offered.append(` and ${tokens.length - MOST_MATCHES} more`);
}

function list(title, sign, flat, note, rows) {
  if (!flat.length) return make("div");
  const body = make("tbody");
  for (let i = 0; i < flat.length; i += 3) {
    const [place, value, beside] = flat.slice(i, i + 3);
    const cell = cells[place], name = cell.dataset.head;
    const row = make("tr", {}, make("th", { scope: "row" }, make("a", { href: cell.getAttribute("href") }, name)), make("td", { class: "number" }, signed(sign * value)));
    if (rows) {
      const [before, token] = rows[beside];
      row.append(make("td", { class: "where" }, before, make("mark", {}, token)));
    }
    body.append(row);
  }
  return make("table", {}, make("caption", {}, make("strong", {}, `Heads that ${title}`), ` ${note}`), body);
}

async function answer(token) {
  cells.forEach((cell) => cell.classList.remove("hit"));
  if (token === null) return at("answer").replaceChildren();
  const part = Math.floor(token / TOKENS_A_FILE);
  const [{ names }] = await Promise.all([load("names"), load("rows"), load(`part-${part}`)]);
  const { parts, rows } = window.alensAtlas;
  const entry = parts[part]?.[token % TOKENS_A_FILE];
  if (!entry) return at("answer").replaceChildren();
  const [raised, lowered, coming] = entry;
  const shown = make("h3", { id: "answered", "data-token": token }, "Heads that write ", make("span", { class: "word" }, visible(names[token])));
  const lists = [
    list("raise it most", 1, raised, "in any row, in logits, with the row:", rows),
    list("lower it most", -1, lowered, "in any row:", rows),
    list("raise it where it comes next", 1, coming, coming.length ? `in the text, mean of ${coming[2]} rows:` : "", null),
  ];
  at("answer").replaceChildren(shown, make("div", { class: "answers" }, ...lists));
  if (!raised.length && !lowered.length) at("answer").append("No head writes it by 0.05 logits or more.");
  for (let i = 0; i < raised.length; i += 3) cells[raised[i]].classList.add("hit");
}

// ---- A link restores what is shown

const shown = () => new URLSearchParams(location.hash.slice(1));
function choose(change) {
  const state = shown();
  for (const [name, value] of Object.entries(change)) state.set(name, value);
  location.hash = state.toString();
}
function restore() {
  const state = shown(), figure = atlas.figures.findIndex((one) => one.title === state.get("figure"));
  at("figure").selectedIndex = Math.max(0, figure);
  paint();
  if (at("answer")) answer(/^\d+$/.test(state.get("token") ?? "") ? Number(state.get("token")) : null);
}
at("figure").addEventListener("change", () => choose({ figure: at("figure").value }));
if (at("asked")) {
  at("asked").addEventListener("focus", () => load("names"));
  at("asked").addEventListener("input", offer);
  at("asked").addEventListener("keydown", (event) => {
    if (event.key === "Enter") offer().then(() => at("matches").querySelector("button")?.click());
  });
}
window.addEventListener("hashchange", restore);
restore();
