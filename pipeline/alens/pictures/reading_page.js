// Draws the page of `alens read --html` from its data: see alens/reading/page_data.py for every field.
// Text of prompts and tokens only ever becomes text (textContent), never markup.

const sheet = await heldData();
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const ON_HEADS = sheet.site === "attn.z";
const PART = ON_HEADS ? "head" : "layer";
const HAS_LIFT = sheet.ranks.includes("lift");
const FIGURES = { kl: "KL to the model", entropy: "Entropy", probability: "Probability of a token", lift: "Lift of a token",
  written: "What it writes on a token" };
const ABOVE = "▲";
// In some models a norm or a factor follows the attention: what their heads write cannot be unembedded.
const HAS_UNEMBEDDING = sheet.prompts[0].places[0].unembedding !== null;
const UNEMBEDDING = (HAS_UNEMBEDDING
  ? "Unembedding: what is written there, through the last norm (with its scale at this position) and the model's unembedding, without a lens. "
  : "What these heads write cannot be unembedded: a norm or a factor follows their attention. ") + "␣ is a space, \\n a new line.";
const HAS_WRITTEN = sheet.no_write === null;
const WRITTEN = HAS_WRITTEN
  ? `Writes: what the ${PART} adds to the logit of a token by itself, beside what it adds on average, centred over the vocabulary, with the last norm at its scale here; what later layers make of it is left out. A ${PART} ${sheet.suppressed_means}.`
  : ON_HEADS ? `What the heads write is left out: ${sheet.no_write}.` : "";
const READINGS = HAS_UNEMBEDDING ? { lens: "lens", unembedding: "unembedding" } : { lens: "lens" };
const RANKS = { lift: "lift", probability: "probability" };
const NONE = "–";
// Where the chosen head looks: shares of its attention, or of what it moves from each token of the prompt.
const SHADES = { looks: "where the head looks", moves: "what it moves", none: "nothing" };
const HAS_LOOKS = sheet.prompts[0].places[0].looks !== null;
const SOURCES = 5;

// A figure becomes a place on a ramp, 0 to 1. Low KL and entropy, which people look for, have strong colours.
const RAMPS = {
  light: { rise: ["#eef3f9", "#a9cbea", "#3d84c0", "#0c3d75"], part: ["#a24b00", "#efb980", "#f1f3f5", "#8fbce5", "#0c3d75"] },
  dark: { rise: ["#1c2733", "#1f5281", "#4a97d2", "#b4dcff"], part: ["#ffb269", "#8a4f17", "#252c34", "#2567a0", "#a5d5ff"] },
};

const state = { prompt: 0, place: 0, cell: 0, figure: "kl", reading: "lens", rank: sheet.rank, token: 0, shade: HAS_LOOKS ? "looks" : "none" };

const at = (id) => document.getElementById(id);
const prompt = () => sheet.prompts[state.prompt];
const place = () => prompt().places[state.place];
const coordinates = (cell) => sheet.cells[cell];

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
const nats = (thousandths) => (thousandths / 1000).toFixed(2);
function percent(share) {  // as pictures/numbers.py writes it
  const value = 100 * share;
  if (value >= 1) return `${value.toFixed(1)}%`;
  return value >= 0.001 ? `${Number(value.toPrecision(2))}%` : value > 0 ? "<0.001%" : "0%";
}
function times(lift) {
  if (lift === null) return NONE;
  if (lift >= 9.95) return `${Math.round(Number(lift.toPrecision(3))).toLocaleString("en")}×`;
  return `${lift >= 0.095 ? lift.toFixed(1) : Number(lift.toPrecision(1)) || "0"}×`;
}
const shareOf = (thousandths) => Math.exp(thousandths / 1000);
function liftOf(token, thousandths) {
  const mean = sheet.tokens[token][1];
  return mean === null ? null : Math.exp((thousandths - mean) / 1000);
}

// ---- The figure of each cell

function figures() {
  const said = place()[state.figure === "written" ? "written" : state.reading];
  if (state.figure === "kl" || state.figure === "entropy") return said[state.figure].map((value) => value / 1000);
  const row = place().kept.indexOf(state.token);
  if (row < 0) return sheet.cells.map(() => null);
  if (state.figure === "written") return said.kept[row].map((value) => value / 1000);
  return said.kept[row].map((value) => (state.figure === "lift" ? liftOf(state.token, value) : shareOf(value)));
}
function signed(value) {  // as pictures/numbers.py writes it: zero is +0.00
  const shown = value.toFixed(2);
  return shown === "-0.00" ? "+0.00" : value < 0 ? shown : `+${shown}`;
}
function asText(value) {
  if (value === null) return NONE;
  if (state.figure === "written") return signed(value);
  if (state.figure === "probability") return percent(value);
  return state.figure === "lift" ? times(value) : value.toFixed(2);
}

// KL of the mean output, which looks at nothing: a head above it says less than no head at all. Null where it is not known.
const nothing = () => (place().mean_output_kl === null ? null : place().mean_output_kl / 1000);
const above = (kl) => nothing() !== null && kl > nothing();
const twoSided = () => state.figure === "lift" || state.figure === "written" || (state.figure === "kl" && nothing() !== null);

// Lenses that the fit found to do no better than the mean output: never shown without the mark.
const saysNothing = (cell, reading) => reading === "lens" && sheet.says_nothing[cell];

// The range of the colours: [lowest, highest, figure -> 0 to 1]. KL has its middle at the mean output. The worse side is
// no steeper than the better one, so that what is barely worse looks so.
function range(values) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return null;
  const low = Math.min(...known), high = Math.max(...known);
  if (state.figure === "probability") return [0, high, (value) => value / (high || 1)];
  if (state.figure === "written") {
    const reach = Math.max(0.1, high, -low);
    return [-reach, reach, (value) => 0.5 + value / (2 * reach)];
  }
  if (state.figure === "lift") {
    const reach = Math.max(2, high, 1 / Math.max(low, 1e-9));
    return [1 / reach, reach, (value) => 0.5 + Math.log(Math.max(value, 1e-9)) / Math.log(reach) / 2];
  }
  if (twoSided()) {
    const middle = nothing(), better = middle - low, worse = Math.max(high - middle, better) || 1;
    return [low, high, (value) => 0.5 + (middle - value) / (2 * (value < middle ? better : worse))];
  }
  return [low, high, (value) => (high > low ? 1 - (value - low) / (high - low) : 0.5)];
}
const ramps = () => RAMPS[dark.matches ? "dark" : "light"];
const ramp = () => ramps()[twoSided() ? "part" : "rise"];

function colour(share, stops = ramp()) {
  const x = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(x), stops.length - 2);
  const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  return [0, 1, 2].map((i) => Math.round(channel(stops[first], i) * (first + 1 - x) + channel(stops[first + 1], i) * (x - first)));
}
function ink(rgb) {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return (luminance + 0.05) ** 2 > 1.05 * 0.05 ? "#000000" : "#ffffff"; // whichever has more contrast, at least 4.5
}

// ---- Drawing

function drawPrompt() {
  const places = new Map(prompt().places.map((place, index) => [place.position, index]));
  const shares = sharesOf(state.shade), most = Math.max(...shares, 0.001);
  const pieces = prompt().tokens.map((token, position) => {
    const shown = visible(sheet.tokens[token][0]), share = shares[position];
    const shaded = share === undefined ? "" : `: ${SHADES[state.shade]} ${percent(share)}`;
    let piece = make("span", { class: "piece", text: shown, title: `not read: see --position${shaded}` });
    if (places.has(position)) {
      const index = places.get(position), chosen = index === state.place;
      piece = make("button", {
        type: "button", class: "piece", text: shown, "data-place": index, "aria-pressed": chosen, tabindex: chosen ? 0 : -1,
        "aria-label": `position ${position}: ${shown}${shaded}`, title: shaded ? `${shown}${shaded}` : null,
      });
      piece.addEventListener("click", () => choose({ place: index }, `#tokens [data-place="${index}"]`));
    }
    if (shaded) {
      const rgb = colour(share / most, ramps().rise);
      piece.style.backgroundColor = `rgb(${rgb.join(",")})`;
      piece.style.color = ink(rgb);
    }
    return piece;
  });
  at("tokens").replaceChildren(...pieces);
}

// Shares of the chosen head at the chosen position, by place in the prompt; what comes after the position has none.
const sharesOf = (shade) => (shade === "none" || !HAS_LOOKS ? [] : place()[shade][state.cell].map((thousandths) => thousandths / 1000));

function drawSources() {
  at("sources").hidden = state.shade === "none";
  const shares = sharesOf(state.shade);
  const places = shares.map((_, position) => position).sort((a, b) => shares[b] - shares[a]).slice(0, SOURCES).filter((position) => shares[position] >= 0.01);
  const texts = places.map((position) => `${position} ‘${visible(sheet.tokens[prompt().tokens[position]][0])}’ ${percent(shares[position])}`);
  at("sources").textContent = `${state.shade === "looks" ? "Looks at" : "Moves from"}: ${texts.join(", ") || "nothing from 1% on"}`;
}

function drawTokenChoice() {
  const groups = [["asked for with --token", []], ["the model's list", []], [`lists of ${PART}s`, []]];
  const own = new Set(place().model.filter((_, i) => i % 2 === 0));
  for (const token of place().kept) groups[token < sheet.num_terms ? 0 : own.has(token) ? 1 : 2][1].push(token);
  const parts = groups.filter(([, tokens]) => tokens.length).map(([label, tokens]) =>
    make("optgroup", { label }, ...tokens.map((token) => make("option", { value: token, text: word(token) }))));
  if (!place().kept.includes(state.token)) parts.unshift(make("option", { value: state.token, text: word(state.token) }));
  at("token").replaceChildren(...parts);
  at("token").value = String(state.token);
}

function drawGrid() {
  const values = figures(), scale = range(values), many = sheet.heads.length > 8;
  const tokenShown = state.figure === "kl" || state.figure === "entropy";
  const lists = place()[state.reading].lists[state.rank];
  const cells = values.map((value, cell) => {
    const [layer, head] = coordinates(cell), chosen = cell === state.cell;
    const worse = state.figure === "kl" && above(value);
    const first = lists[cell].length ? word(lists[cell][0]) : NONE;
    const name = ON_HEADS ? `layer ${layer}, head ${head}` : `layer ${layer}`;
    const button = make("button", {
      type: "button", class: "cell", "data-cell": cell, "aria-pressed": chosen, tabindex: chosen ? 0 : -1,
      "aria-label": `${name}: ${FIGURES[state.figure]} ${asText(value)}${worse ? ", above the mean output" : ""}${tokenShown ? `, first token ${first}` : ""}`,
    });
    const silent = state.figure !== "written" && saysNothing(cell, state.reading);
    if (silent) button.setAttribute("aria-label", `${button.getAttribute("aria-label")}, ${sheet.nothing_means}`);
    if (silent) button.append(make("span", { class: "nothing", text: "says nothing", title: sheet.nothing_means }));
    else if (tokenShown) button.append(make("span", { class: "first", text: first, title: first }));
    button.append(make("span", { class: "number", text: (worse ? `${ABOVE} ` : "") + asText(value) }));
    if (state.figure === "written" && suppresses(cell)) {
      button.append(make("span", { class: "nothing", text: "knows it", title: sheet.suppressed_means }));
      button.setAttribute("aria-label", `${button.getAttribute("aria-label")}, ${sheet.suppressed_means}`);
    }
    if (value !== null) {
      const rgb = colour(scale[2](value));
      button.style.backgroundColor = `rgb(${rgb.join(",")})`;
      button.style.color = ink(rgb);
    }
    button.addEventListener("click", () => choose({ cell }, `#grid [data-cell="${cell}"]`));
    return button;
  });
  const names = sheet.heads.map((head) => make("th", { scope: "col", text: ON_HEADS ? `head ${head}` : sheet.site }));
  const rows = sheet.layers.map((layer) => make("tr", {}, make("th", { scope: "row", text: `layer ${layer}` }),
    ...sheet.heads.map((head) => make("td", {}, ...cells.filter((_, cell) => coordinates(cell).join() === `${layer},${head}`)))));
  const caption = ON_HEADS ? "Heads: arrow keys move, Enter shows a head" : "Layers: arrow keys move, Enter shows a layer";
  at("grid").setAttribute("aria-label", caption);
  at("grid").className = ON_HEADS ? (many ? "many" : "") : "wide";
  at("grid").replaceChildren(make("thead", {}, make("tr", {}, make("td"), ...names)), make("tbody", {}, ...rows));
  drawLegend(scale);
}

function drawLegend(scale) {
  at("legend").hidden = scale === null;
  const token = `‘${word(state.token)}’`;
  if (scale === null) {
    at("meaning").textContent = `${token} is in none of the lists at this position, or there was no room for it: --token keeps it everywhere.`;
    return;
  }
  at("low").textContent = asText(scale[0]);
  at("high").textContent = asText(scale[1]);
  let stops = state.figure === "entropy" ? [...ramp()].reverse() : ramp();
  if (state.figure === "kl") {  // bent at the mean output: drawn from the colours themselves
    stops = Array.from({ length: 21 }, (_, i) => `rgb(${colour(scale[2](scale[0] + ((scale[1] - scale[0]) * i) / 20)).join(",")})`);
  }
  at("scale").style.background = `linear-gradient(to right, ${stops.join(",")})`;
  const row = place().kept.indexOf(state.token);
  const model = row < 0 ? null : place().model_kept[row];
  at("meaning").textContent = {
    kl: `KL(model, ${PART}) in nats: how far the ${PART}'s distribution is from the model's output. 0 is the model itself. ` + meanOutput(),
    entropy: `Entropy of the ${PART}'s distribution in nats: low where it is sure, ${Math.log(sheet.vocabulary).toFixed(2)} where all tokens are equally likely. The model's own: ${nats(place().entropy)}.`,
    probability: `Probability of ${token}.` + (model === null ? "" : ` The model's own: ${percent(shareOf(model))}.`),
    written: `What each ${PART} writes on ${token}, in logits: blue raises it, orange lowers it, 0 is no change. “knows it” marks a ${PART} whose lens raises it all the same.`,
    lift: `Lift of ${token}: its probability over its share of the mean output. Above 1, the ${PART} raises it.` +
      (model === null ? "" : ` The model's own: ${times(liftOf(state.token, model))}.`),
  }[state.figure];
  if (usesToken() && place().left_out) at("meaning").textContent += ` The menu has no room for ${place().left_out} tokens of the lists here: --token keeps a token.`;
}

const meanOutput = () => nothing() === null
  ? "These lenses do not hold the mean output, so there is no KL to compare with."
  : `The mean output, which looks at nothing, has ${nothing().toFixed(2)} here: ${ABOVE} marks a KL above that, worse than no ${PART} at all.`;

function drawLists() {
  const [layer, head] = coordinates(state.cell);
  at("head").textContent = ON_HEADS ? `Layer ${layer}, head ${head}` : `Layer ${layer}, ${sheet.site}`;
  at("nothing").textContent = saysNothing(state.cell, "lens") ? `! The lens ${sheet.nothing_means}.` : "";
  at("after").textContent = `next token after “${place().before}”`;
  const lists = Object.keys(READINGS).map((reading) => {
    const said = place()[reading];
    return [reading, said.lists[state.rank][state.cell], said.kept.slice(0, sheet.num_terms).map((row) => row[state.cell]),
      figuresOf(said.kl[state.cell] / 1000, said.entropy[state.cell])];
  });
  if (HAS_WRITTEN) at("suppressed").textContent = suppressed();
  lists.push(["model", place().model, place().model_kept.slice(0, sheet.num_terms), figuresOf(0, place().entropy)]);
  const drawn = lists.map((list) => drawList(...list));
  if (HAS_WRITTEN) drawn.splice(1, 0, drawWrites("raised"), drawWrites("lowered"));
  at("lists").replaceChildren(...drawn);
}

// The tokens that the lens of a head raises and its write lowers: token, thousandths, token, ...
const suppressedOf = (cell) => place().written.suppressed[cell];
const bare = (token) => sheet.tokens[token][0].trim();
const isChosen = (token) => token === state.token || (state.token < sheet.num_terms && bare(token) === bare(state.token));
const suppresses = (cell) => suppressedOf(cell).some((token, i) => i % 2 === 0 && isChosen(token));
function suppressed() {
  const entries = suppressedOf(state.cell), tokens = [];
  for (let i = 0; i < entries.length; i += 2) tokens.push(`${word(entries[i])} ${signed(entries[i + 1] / 1000)}`);
  return tokens.length ? `Knows, and suppresses: ${tokens.join(", ")}` : "";
}

function drawWrites(name) {
  const entries = place().written[name][state.cell], most = Math.max(...entries.filter((_, i) => i % 2 === 1).map(Math.abs));
  const rows = [], sign = name === "raised" ? 1 : -1;
  for (let i = 0; i < entries.length; i += 2) rows.push(drawWritten(entries[i], entries[i + 1], most));
  place().written.kept.slice(0, sheet.num_terms).forEach((row, token) => {
    const value = row[state.cell];
    if ((value >= 0 ? 1 : -1) === sign) rows.push(drawWritten(token, value, most, token));
  });
  return make("table", { class: "list", "data-list": name },
    make("caption", {}, make("strong", { text: TITLES[name] }), make("span", { class: "quiet", text: "by itself, in logits" })),
    make("colgroup", {}, make("col"), make("col", { class: "share" })),
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "token" }), make("th", { scope: "col", text: "logit" }))),
    make("tbody", {}, ...rows));
}

function drawWritten(token, thousandths, most, term = null) {
  const bar = make("span", { class: thousandths < 0 ? "bar lowers" : "bar" });
  bar.style.width = `${Math.min(100, (100 * Math.abs(thousandths)) / (most || 1))}%`;
  return make("tr", { class: term === null ? null : "asked" }, make("td", {}, chooser(token, "written")),
    make("td", { class: "share" }, bar, make("span", { class: "text", text: signed(thousandths / 1000) })));
}

const figuresOf = (kl, entropy) => [
  (above(kl) ? `${ABOVE} ` : "") + `KL ${kl.toFixed(2)}` + (nothing() === null ? "" : ` (mean output ${nothing().toFixed(2)})`),
  `entropy ${nats(entropy)}`,
];
const TITLES = { lens: "Lens", raised: "Writes: raises", lowered: "Writes: lowers", unembedding: "Unembedding", model: "The model itself" };

function drawList(name, entries, terms, figuresOfIt) {
  const rows = [], most = shareOf(Math.max(...entries.filter((_, i) => i % 2 === 1)));
  for (let i = 0; i < entries.length; i += 2) rows.push(drawEntry(entries[i], entries[i + 1], most));
  terms.forEach((value, token) => rows.push(drawEntry(token, value, most, token === 0)));
  return make("table", { class: "list", "data-list": name },
    make("caption", {}, make("strong", { text: TITLES[name] }), ...figuresOfIt.map((text) => make("span", { class: "quiet", text }))),
    make("colgroup", {}, make("col"), make("col", { class: "share" }), ...(HAS_LIFT ? [make("col", { class: "lift" })] : [])),
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "token" }), make("th", { scope: "col", text: "prob." }),
      ...(HAS_LIFT ? [make("th", { scope: "col", text: "lift" })] : []))),
    make("tbody", {}, ...rows));
}

// The name of a token in a list, which colours the grid by it where it is kept.
function chooser(token, figure = null) {
  const shown = word(token);
  if (!place().kept.includes(token)) return make("span", { class: "word", text: shown, title: shown });
  const name = make("button", { type: "button", class: "word", text: shown, title: `colour the grid by ${shown}`, "data-token": token,
    "aria-pressed": usesToken() && token === state.token });
  name.addEventListener("click", () => {
    const list = name.closest(".list").dataset.list;
    choose({ token, figure: figure ?? tokenFigure() }, `[data-list="${list}"] [data-token="${token}"]`);
  });
  return name;
}

function drawEntry(token, thousandths, most, firstTerm = false) {
  const share = shareOf(thousandths), name = chooser(token);
  const bar = make("span", { class: "bar" });
  bar.style.width = `${Math.min(100, (100 * share) / most)}%`;
  return make("tr", { class: firstTerm ? "asked" : null }, make("td", {}, name),
    make("td", { class: "share" }, bar, make("span", { class: "text", text: percent(share) })),
    ...(HAS_LIFT ? [make("td", { class: "lift-of", text: times(liftOf(token, thousandths)) })] : []));
}

// ---- What people do

const usesToken = () => ["probability", "lift", "written"].includes(state.figure);
const tokenFigure = () => (usesToken() ? state.figure : HAS_LIFT ? "lift" : "probability");

function choose(change, focus = null) {
  Object.assign(state, change);
  draw();
  if (focus !== null) document.querySelector(focus)?.focus();
}

function draw() {
  for (const name of ["figure", "reading", "rank", "shade"]) {
    const chosen = document.querySelector(`input[name="${name}"][value="${state[name]}"]`);
    if (chosen) chosen.checked = true;
  }
  const scrolled = at("scroll").scrollLeft;
  at("readings").disabled = state.figure === "written";
  drawPrompt();
  drawSources();
  drawTokenChoice();
  drawGrid();
  drawLists();
  at("scroll").scrollLeft = scrolled;
}

function options(id, name, labels) {
  for (const [value, text] of Object.entries(labels)) {
    const input = make("input", { type: "radio", name, value });
    input.addEventListener("change", () => choose({ [name]: value }));
    at(id).append(make("label", { class: "option" }, input, make("span", { text })));
  }
}

// One stop of the Tab key a group; arrow keys, Home and End go through it.
// `places` gives the buttons in reading order, null for a cell of the grid that has none: arrows go on to the next.
function arrows(container, places, columns) {
  container.addEventListener("keydown", (event) => {
    const all = places(), from = all.indexOf(event.target), width = columns();
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: width, ArrowUp: -width }[event.key];
    let to = from + (step ?? 0), next = step;
    if (event.key === "Home") [to, next] = [from - (from % width), 1];
    else if (event.key === "End") [to, next] = [from - (from % width) + width - 1, -1];
    else if (step === undefined) return;
    event.preventDefault();
    while (all[to] === null) to += next;
    const target = all[Math.abs(step) === 1 && Math.floor(to / width) !== Math.floor(from / width) ? from : to];
    if (from < 0 || !target) return;
    for (const each of all.filter((one) => one !== null)) each.tabIndex = each === target ? 0 : -1;
    target.focus();
  });
}

function start() {
  const what = ON_HEADS ? "attention heads" : `layers (${sheet.site})`;
  at("title").textContent = `What the ${what} of ${sheet.model} say`;
  at("about").textContent = `Choose a token of the prompt, then a cell of the grid: its lists say what the lens reads there as the next token, and what the ${PART} writes. ` +
    "A click on a token of a list colours the grid by it.";
  const kinds = Object.entries(FIGURES).filter(([name]) => (name !== "lift" || HAS_LIFT) && (name !== "written" || HAS_WRITTEN));
  options("figures", "figure", Object.fromEntries(kinds));
  options("readings", "reading", READINGS);
  options("ranks", "rank", Object.fromEntries(sheet.ranks.map((rank) => [rank, RANKS[rank]])));
  options("shades", "shade", SHADES);
  at("shades").hidden = !HAS_LOOKS;
  at("ranks").hidden = sheet.ranks.length < 2;
  at("notes").textContent = HAS_LIFT
    ? `Lift is probability over the token's share of the model's mean output. Lists by lift leave out tokens below ${percent(sheet.min_probability)}, as long as enough tokens are above it; ` +
      "the model's own list is always by probability. " + UNEMBEDDING
    : "These lenses do not hold the model's mean output, so there is no lift. " + UNEMBEDDING;
  if (HAS_LOOKS) at("notes").textContent += " The prompt is shaded by the attention of the chosen head at the chosen position, or by the size of what it moves from each token: " +
    "the norm of weight v W_O, as a share of all. The strongest token has the strongest colour.";
  at("writes").textContent = WRITTEN;
  at("prompt").append(...sheet.prompts.map((each, index) => make("option", { value: index, text: visible(each.text).replaceAll("␣", " ") })));
  at("prompt-choice").hidden = sheet.prompts.length < 2;
  at("prompt").addEventListener("change", () => choose(opened(Number(at("prompt").value))));
  at("token").addEventListener("change", () => choose({ token: Number(at("token").value), figure: tokenFigure() }));
  arrows(at("tokens"), () => [...at("tokens").querySelectorAll("button")], () => Infinity);
  arrows(at("grid"), () => [...at("grid").querySelectorAll("tbody td")].map((cell) => cell.firstChild), () => sheet.heads.length);
  dark.addEventListener("change", draw);
  Object.assign(state, opened(0));
  state.token = sheet.num_terms ? 0 : place().kept[0];
  const kl = place().lens.kl;
  state.cell = kl.indexOf(Math.min(...kl));
  draw();
}

// A prompt is opened at its last position that was read.
const opened = (index) => ({ prompt: index, place: sheet.prompts[index].places.length - 1 });

start();
