
// ---- What people do, and the link that restores what they see

const tokenFigure = () => (usesToken() ? state.figure : HAS_LIFT ? "lift" : "probability");

function choose(change, focus = null) {
  Object.assign(state, change);
  if (state.view === "token" && !usesToken()) state.figure = tokenFigure();
  if (onModel() && !(state.figure in columnFigures())) state.figure = tokenFigure();
  draw();
  writeLink();
  if (focus !== null) document.querySelector(focus)?.focus({ preventScroll: true });
}

// What colours the grid of the view at hand.
function columnFigures() {
  return Object.fromEntries(Object.entries(FIGURES).filter(([name]) => (state.view === "token" ? OF_TOKENS.includes(name) : !onModel() || !LOGITS.includes(name))));
}

function draw() {
  const pair = state.view === "pair", offered = columnFigures();
  for (const input of document.querySelectorAll('input[name="figure"]')) input.closest("label").hidden = !(input.value in offered);
  for (const name of ["view", "figure", "reading", "rank", "shade", "order"]) {
    const chosen = document.querySelector(`input[name="${name}"][value="${state[name]}"]`);
    if (chosen) chosen.checked = true;
  }
  at("readings").hidden = onModel() || Object.keys(READINGS).length < 2;
  at("readings").disabled = isLogit();
  at("orders").hidden = state.view !== "token";
  at("column-choice").hidden = state.view !== "layers";
  at("column").value = String(state.column);
  at("other-choice").hidden = at("other-tokens").hidden = !pair;
  at("prompt").value = String(state.prompt);
  at("other").value = String(state.other);
  document.getElementById("alens-reading").dataset.view = state.view;
  drawPrompt(at("tokens"), state.prompt, state.place, "place");
  if (pair) drawPrompt(at("other-tokens"), state.other, state.otherPlace, "other");
  drawTokenChoice();
  drawPanel();
  drawGrid();
}

// The fragment of the address: names people can read, as far as there are any.
const LINKED = {
  view: [() => state.view, (text) => text in VIEWS && { view: text }],
  prompt: [() => state.prompt, (text) => text in sheet.prompts && { prompt: Number(text), place: lastPlace(Number(text)) }],
  position: [() => place().position, (text) => placeAt(state.prompt, text, "place")],
  beside: [() => state.other, (text) => text in sheet.prompts && { other: Number(text), otherPlace: lastPlace(Number(text)) }],
  "beside-position": [() => otherPlace().position, (text) => placeAt(state.other, text, "otherPlace")],
  head: [() => sheet.cells[state.cell].join("."), (text) => cellOf.has(text) && { cell: cellOf.get(text) }],
  column: [() => state.column, (text) => (text === MODEL && HAS_STREAM ? { column: MODEL } : sheet.heads.map(String).includes(text) && { column: Number(text) })],
  layer: [() => state.layer, (text) => HAS_STREAM && text in sheet.stream_layers && { layer: Number(text) }],
  colour: [() => state.figure, (text) => text in columnFigures() && { figure: text }],
  by: [() => state.reading, (text) => text in READINGS && { reading: text }],
  lists: [() => state.rank, (text) => sheet.ranks.includes(text) && { rank: text }],
  token: [() => state.token, (text) => text in sheet.tokens && { token: Number(text) }],
  shade: [() => state.shade, (text) => text in SHADES && (HAS_LOOKS || text === "none") && { shade: text }],
  order: [() => state.order, (text) => text in ORDERS && { order: text }],
};
function placeAt(index, text, name) {
  const number = sheet.prompts[index].places.findIndex((where) => String(where.position) === text);
  return number >= 0 && { [name]: number };
}
const linkTo = () => `#${new URLSearchParams(Object.entries(LINKED).map(([name, [value]]) => [name, value()]))}`;
function readLink() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, [, change]] of Object.entries(LINKED)) {  // in this order: a position is one of the prompt before it
    if (given.has(name)) Object.assign(state, change(given.get(name)) || {});
  }
}
function writeLink() {
  at("link").href = linkTo();
  try {
    history.replaceState(null, "", linkTo());
  } catch { /* a page within a notebook has no address of its own */ }
}

function options(id, name, labels, titles = {}) {
  for (const [value, text] of Object.entries(labels)) {
    const input = make("input", { type: "radio", name, value });
    input.addEventListener("change", () => choose({ [name]: value }));
    at(id).append(make("label", { class: "option", title: titles[value] ?? null }, input, make("span", { text })));
  }
}

// One stop of the Tab key a group; arrow keys, Home and End go through it.
// `rows` gives the buttons in rows, null for a cell of the grid that has none: arrows go on to the next.
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0], Home: [0, -1], End: [0, 1] };
function arrows(container, rows) {
  container.addEventListener("keydown", (event) => {
    const step = STEPS[event.key], all = rows(), from = event.target.closest("button");
    const row = all.findIndex((buttons) => buttons.includes(from));
    if (step === undefined || row < 0) return;
    event.preventDefault();
    let target = from, r = row + step[0], c = all[row].indexOf(from) + step[1];
    for (; all[r] !== undefined && all[r][c] !== undefined; r += step[0], c += step[1]) {
      if (all[r][c] === null) continue;
      target = all[r][c];
      if (!["Home", "End"].includes(event.key)) break;
    }
    from.tabIndex = -1;
    target.tabIndex = 0;
    target.focus({ preventScroll: true });
    showInside(container, target, container.querySelector("thead")?.offsetHeight, container.querySelector("thead") ? 60 : 0);
  });
}

// On a small screen the lists are below the grid: bring both into sight.
function showLists() {
  const head = at("head").getBoundingClientRect();
  if (head.bottom > window.innerHeight || head.top < 0) at("columns").scrollIntoView({ block: "start" });
}

function start() {
  const what = ON_HEADS ? "attention heads" : `layers (${sheet.site})`;
  at("title").textContent = `What the ${what} of ${sheet.model} say`;
  at("about").textContent = `Choose a token of the prompt, then a cell of the grid: its lists say what the lens reads there as the next token, and what the ${PART} writes. ` +
    "A click on a token of a list colours the grid by it.";
  options("views", "view", VIEWS);
  options("figures", "figure", Object.fromEntries(Object.keys(FIGURES).map((name) => [name, SHORT[name]])), FIGURES);
  options("readings", "reading", READINGS);
  options("ranks", "rank", Object.fromEntries(sheet.ranks.map((rank) => [rank, RANKS[rank]])));
  options("shades", "shade", SHADES);
  options("orders", "order", ORDERS);
  at("shades").hidden = !HAS_LOOKS;
  writeNotes();
  for (const id of ["prompt", "other"]) at(id).append(...sheet.prompts.map((each, index) => make("option", { value: index, text: visible(each.text).replaceAll("␣", " ") })));
  at("prompt-choice").hidden = sheet.prompts.length < 2;
  if (HAS_STREAM) at("column").append(make("option", { value: MODEL, text: "the model (logit lens)" }));
  at("column").append(...sheet.heads.map((head) => make("option", { value: head, text: ON_HEADS ? `head ${head} of each layer` : sheet.site })));
  at("column").addEventListener("change", () => choose({ column: at("column").value === MODEL ? MODEL : Number(at("column").value) }));
  at("prompt").addEventListener("change", () => choose({ prompt: Number(at("prompt").value), place: lastPlace(at("prompt").value) }));
  at("other").addEventListener("change", () => choose({ other: Number(at("other").value), otherPlace: lastPlace(at("other").value) }));
  at("token").addEventListener("change", () => choose({ token: Number(at("token").value), figure: tokenFigure() }));
  listen();
  const other = Math.min(1, sheet.prompts.length - 1);
  Object.assign(state, { place: lastPlace(0), other, otherPlace: other ? lastPlace(other) : 0 });
  state.token = sheet.num_terms ? 0 : place().kept[0];
  if (HAS_STREAM) Object.assign(state, { column: MODEL, layer: sheet.stream_layers.length - 1 });
  const kl = place().lens.kl;
  state.cell = kl.indexOf(Math.min(...kl));
  readLink();
  choose({});
}

function listen() {
  at("tokens").addEventListener("click", (event) => {
    const piece = event.target.closest("button");
    if (piece) choose({ place: Number(piece.dataset.place) }, `#tokens [data-place="${piece.dataset.place}"]`);
  });
  at("other-tokens").addEventListener("click", (event) => {
    const piece = event.target.closest("button");
    if (piece) choose({ otherPlace: Number(piece.dataset.other) }, `#other-tokens [data-other="${piece.dataset.other}"]`);
  });
  at("grid").addEventListener("click", (event) => {
    const cell = event.target.closest("button");
    if (!cell) return;
    const { cell: number, at: index, layer, side } = cell.dataset;
    choose(cell.chooses, ["cell", "at", "layer", "side"].map((name) => (cell.dataset[name] === undefined ? "" : `[data-${name}="${cell.dataset[name]}"]`)).join("") + ".cell");
    showLists();
  });
  at("lists").addEventListener("click", (event) => {
    const name = event.target.closest("button");
    if (!name) return;
    const { token, figure } = name.dataset, list = name.closest(".list").dataset;
    const by = figure !== undefined && !onModel() ? { figure } : { figure: isLogit() ? (HAS_LIFT ? "lift" : "probability") : tokenFigure() };
    choose({ token: Number(token), ...by }, `[data-list="${list.list}"]${list.of ? `[data-of="${list.of}"]` : ""} [data-token="${token}"]`);
  });
  for (const id of ["tokens", "other-tokens"]) arrows(at(id), () => [[...at(id).querySelectorAll("button")]]);
  arrows(at("scroll"), () => grid.rows);
  dark.addEventListener("change", draw);
  window.addEventListener("resize", () => {
    fit();
    showChosen();
  });
  window.addEventListener("hashchange", () => {
    readLink();
    draw();
  });
}

function writeNotes() {
  const space = "␣ is a space, \\n a new line.";
  const unembedding = HAS_UNEMBEDDING
    ? "Unembedding: what is written there, through the last norm (with its scale at this position) and the model's unembedding, without a lens. " + space
    : HAS_WRITTEN ? space : "What these heads write cannot be unembedded: a norm or a factor follows their attention. " + space;
  at("notes").textContent = HAS_LIFT
    ? `Lift is probability over the token's share of the model's mean output. Lists by lift leave out tokens below ${percent(sheet.min_probability)}, as long as enough tokens are above it; ` +
      "the model's own list is always by probability. " + unembedding
    : "These lenses do not hold the model's mean output, so there is no lift. " + unembedding;
  if (HAS_LOOKS) at("notes").textContent += " The prompt is shaded by the attention of the chosen head at the chosen position, or by the size of what it moves from each token: " +
    "the norm of weight v W_O, as a share of all. The strongest token has the strongest colour.";
  at("writes").textContent = HAS_WRITTEN
    ? `Writes: what the ${PART} adds to the logit of a token by itself, beside what it adds on average, centred over the vocabulary, with the last norm at its scale here; what later layers make of it is left out. A ${PART} ${sheet.suppressed_means}.`
    : ON_HEADS ? `What the heads write is left out: ${sheet.no_write}.` : "";
  if (HAS_EFFECT) at("writes").textContent += " Effect: what the head adds to the logit of a token all in all, with what later layers make of it, as its effect lens says from measured effects of other text.";
}

start();
