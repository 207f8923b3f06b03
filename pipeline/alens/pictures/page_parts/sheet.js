// What the page of `alens read --html` holds, and what is chosen on it. The data: alens/reading/page_data.py has every field.
// Text of prompts and tokens only ever becomes text (textContent), never markup. The files page_parts/*.js are one module.

const sheet = await heldData();
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const first = sheet.prompts[0].places[0];
const ON_HEADS = sheet.site === "attn.z";
const PART = ON_HEADS ? "head" : "layer";
const HAS_LIFT = sheet.ranks.includes("lift");
// It may be left out; and in some models a norm or a factor follows the attention, so that there is none.
const HAS_UNEMBEDDING = first.unembedding !== null;
const HAS_WRITTEN = sheet.no_write === null;
// Effect lenses that were given with --effect.
const HAS_EFFECT = first.effect !== null;
const HAS_LOOKS = first.looks !== null;
// The residual stream after each layer, through the last norm and the unembedding.
const HAS_STREAM = first.stream !== null;
const ABOVE = "▲";
const NONE = "–";
const SOURCES = 5;

const VIEWS = {
  heads: `${PART}s`,
  token: "one token",
  layers: "layers × positions",
  pair: "two prompts",
};
const FIGURES = Object.fromEntries(Object.entries({
  kl: "KL to the model", entropy: "entropy", probability: "probability of a token", lift: HAS_LIFT && "lift of a token",
  written: HAS_WRITTEN && "what it writes on a token", effect: HAS_EFFECT && "its effect on a token",
}).filter(([, title]) => title));
const SHORT = { kl: "KL", entropy: "entropy", probability: "probability", lift: "lift", written: "write", effect: "effect" };
const OF_TOKENS = ["probability", "lift", "written", "effect"];
const LOGITS = ["written", "effect"];
const READINGS = HAS_UNEMBEDDING ? { lens: "lens", unembedding: "unembedding" } : { lens: "lens" };
const RANKS = { lift: "lift", probability: "probability" };
// Where the chosen head looks: shares of its attention, or of what it moves from each token of the prompt.
const SHADES = { looks: "attention", moves: "what is moved", none: "nothing" };
const ORDERS = { layer: "layer", strength: "strength" };

const state = {
  view: "heads", prompt: 0, place: 0, other: 0, otherPlace: 0, cell: 0, layer: 0, column: sheet.heads[0], figure: "kl", reading: "lens",
  rank: sheet.rank, token: 0, shade: HAS_LOOKS ? "looks" : "none", order: "layer",
};

const at = (id) => document.getElementById(id);
const prompt = () => sheet.prompts[state.prompt];
const place = () => prompt().places[state.place];
const otherPrompt = () => sheet.prompts[state.other];
const otherPlace = () => otherPrompt().places[state.otherPlace];
const cellOf = new Map(sheet.cells.map(([layer, head], cell) => [`${layer}.${head}`, cell]));
const nameOf = (cell) => (ON_HEADS ? sheet.cells[cell].join(".") : `layer ${sheet.cells[cell][0]}`);
const longNameOf = (cell) => (ON_HEADS ? `layer ${sheet.cells[cell][0]}, head ${sheet.cells[cell][1]}` : `layer ${sheet.cells[cell][0]}`);
const usesToken = () => OF_TOKENS.includes(state.figure);
const isLogit = () => LOGITS.includes(state.figure);
// A prompt is opened at its last position that was read.
const lastPlace = (index) => sheet.prompts[index].places.length - 1;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// ---- Numbers and tokens as text

function visible(text) {
  const shown = text.replaceAll(" ", "␣").replaceAll("\n", "\\n").replaceAll("\t", "\\t").replaceAll("\r", "\\r");
  return shown === "" ? "(nothing)" : shown;
}
const word = (token) => (token < sheet.num_terms ? sheet.tokens[token][0] : visible(sheet.tokens[token][0]));
const wordAt = (index, position) => visible(sheet.tokens[sheet.prompts[index].tokens[position]][0]);
const nats = (thousandths) => (thousandths / 1000).toFixed(2);
function percent(share) {
  const value = 100 * share;
  if (value >= 1) return `${value.toFixed(1)}%`;
  return value >= 0.001 ? `${Number(value.toPrecision(2))}%` : value > 0 ? "<0.001%" : "0%";
}
// Nobody reads 8,300,000x: three digits that count, and a letter.
function times(lift) {
  if (lift === null) return NONE;
  if (lift >= 9.995e5) return `${Number((lift / 1e6).toPrecision(3)).toLocaleString("en")}M×`;
  if (lift >= 9995) return `${Number((lift / 1e3).toPrecision(3))}k×`;
  if (lift >= 9.95) return `${Math.round(Number(lift.toPrecision(3))).toLocaleString("en")}×`;
  return lift >= 0.095 ? `${lift.toFixed(1)}×` : lift >= 0.001 ? `${Number(lift.toPrecision(1))}×` : "<0.001×";
}
function signed(value) {  // zero is +0.00
  const shown = value.toFixed(2);
  return shown === "-0.00" ? "+0.00" : value < 0 ? shown : `+${shown}`;
}
function asText(value) {
  if (value === null) return NONE;
  if (isLogit()) return signed(value);
  if (state.figure === "probability") return percent(value);
  return state.figure === "lift" ? times(value) : value.toFixed(2);
}
// The difference of a figure between two places: a factor where the figure is a share.
const differs = (a, b) => (a === null || b === null ? null : ["probability", "lift"].includes(state.figure) ? b / a : b - a);
const differenceText = (value) => (value === null ? NONE : ["probability", "lift"].includes(state.figure) ? times(value) : signed(value));

const shareOf = (thousandths) => Math.exp(thousandths / 1000);
function liftOf(token, thousandths) {
  const mean = sheet.tokens[token][1];
  return mean === null ? null : Math.exp((thousandths - mean) / 1000);
}

// ---- The figure of each cell

// The numbers of a figure at a place, one for each cell; null where the place does not have the token.
function figuresAt(where, source = isLogit() ? state.figure : state.reading) {
  const said = where[source], none = () => (source === "stream" ? sheet.stream_layers : sheet.cells).map(() => null);
  if (!usesToken()) return said[state.figure].map((value) => value / 1000);
  const row = where.kept.indexOf(state.token);
  if (row < 0) return none();
  if (isLogit()) return said.kept[row].map((value) => (value === null ? null : value / 1000));
  return said.kept[row].map((value) => (state.figure === "lift" ? liftOf(state.token, value) : shareOf(value)));
}

// KL of the mean output, which looks at nothing: a head above it says less than no head at all. Null where it is not known.
const nothingAt = (where) => (where.mean_output_kl === null ? null : where.mean_output_kl / 1000);
const aboveAt = (where, kl) => nothingAt(where) !== null && kl > nothingAt(where);

// Lenses that the fit found to do no better than the mean output: never shown without the mark.
const saysNothing = (cell, reading) => reading === "lens" && sheet.says_nothing[cell];

// The tokens that the lens of a head raises and its write lowers: token, thousandths, token, ...
const suppressedOf = (cell) => place().written.suppressed[cell];
const bare = (token) => sheet.tokens[token][0].trim();
const isChosen = (token) => token === state.token || (state.token < sheet.num_terms && bare(token) === bare(state.token));
const suppresses = (cell) => suppressedOf(cell).some((token, i) => i % 2 === 0 && isChosen(token));
