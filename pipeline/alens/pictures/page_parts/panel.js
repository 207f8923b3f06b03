
// ---- The lists of the chosen head, beside the grid

const TITLES = { lens: "Lens", unembedding: "Unembedding", model: "The model itself", stream: "The model after this layer" };
const ADDS = { written: ["Writes", "by itself, in logits"], effect: ["Effect", "all in all, in logits"] };

function drawPanel() {
  at("ranks").hidden = sheet.ranks.length < 2;
  drawSources();
  const pair = state.view === "pair";
  at("after").textContent = `next token after “${place().before}”` + (pair ? `, beside that after “${otherPlace().before}”` : "");
  at("head").textContent = onModel() ? `The model after layer ${sheet.stream_layers[state.layer]}` : ON_HEADS ? capital(longNameOf(state.cell)) : `Layer ${sheet.cells[state.cell][0]}, ${sheet.site}`;
  at("nothing").textContent = !onModel() && saysNothing(state.cell, "lens") ? `! The lens ${sheet.nothing_means}.` : "";
  at("suppressed").textContent = HAS_WRITTEN && !onModel() ? suppressed() : "";
  const drawn = onModel() ? [streamList(), modelList(place())] : pair ? pairLists() : headLists(place());
  at("lists").replaceChildren(...drawn);
}
const capital = (text) => text[0].toUpperCase() + text.slice(1);

const readingList = (where, name, side = "") => {
  const said = where[name];
  return drawList(name, said.lists[state.rank][state.cell], said.kept.slice(0, sheet.num_terms).map((row) => row[state.cell]),
    figuresOf(where, said.kl[state.cell] / 1000, said.entropy[state.cell]), where, side);
};
const modelList = (where, side = "") => drawList("model", where.model, where.model_kept.slice(0, sheet.num_terms), figuresOf(where, 0, where.entropy), where, side);
function headLists(where, side = "") {
  const lists = [readingList(where, "lens", side), modelList(where, side)];
  for (const figure of Object.keys(ADDS)) {
    if (figure in FIGURES) lists.push(drawAdded(where, figure, "raised", side), drawAdded(where, figure, "lowered", side));
  }
  if (HAS_UNEMBEDDING) lists.push(readingList(where, "unembedding", side));
  return lists;
}
// The lists of A and of B alternate, so that each pair stands side by side.
function pairLists() {
  const a = headLists(place(), "A"), b = headLists(otherPlace(), "B");
  return a.flatMap((list, index) => [list, b[index]]);
}
function streamList() {
  const said = place().stream;
  return drawList("stream", said.lists[state.rank][state.layer], said.kept.slice(0, sheet.num_terms).map((row) => row[state.layer]),
    figuresOf(place(), said.kl[state.layer] / 1000, said.entropy[state.layer]), place(), "");
}

function suppressed() {
  const entries = suppressedOf(state.cell), tokens = [];
  for (let i = 0; i < entries.length; i += 2) tokens.push(`${word(entries[i])} ${signed(entries[i + 1] / 1000)}`);
  return tokens.length ? `Knows, and suppresses: ${tokens.join(", ")}` : "";
}

const figuresOf = (where, kl, entropy) => [
  (aboveAt(where, kl) ? `${ABOVE} ` : "") + `KL ${kl.toFixed(2)}` + (nothingAt(where) === null ? "" : ` (mean output ${nothingAt(where).toFixed(2)})`),
  `entropy ${nats(entropy)}`,
];

// The tokens that a head raises or lowers most, by what it writes or by its effect lens, and the chosen terms of that sign.
function drawAdded(where, figure, name, side) {
  const entries = where[figure][name][state.cell], most = Math.max(...entries.filter((_, i) => i % 2 === 1).map(Math.abs));
  const rows = [], sign = name === "raised" ? 1 : -1, [title, how] = ADDS[figure];
  for (let i = 0; i < entries.length; i += 2) rows.push(drawLogit(where, entries[i], entries[i + 1], most, figure));
  where[figure].kept.slice(0, sheet.num_terms).forEach((row, token) => {
    const value = row[state.cell];
    if (value !== null && (value >= 0 ? 1 : -1) === sign) rows.push(drawLogit(where, token, value, most, figure, true));
  });
  return make("table", { class: "list", "data-list": figure === "written" ? name : `${figure}-${name}`, "data-of": side || null },
    make("caption", {}, make("strong", { text: `${side && `${side}: `}${title}: ${name === "raised" ? "raises" : "lowers"}` }),
      make("span", { class: "quiet", text: entries.length ? how : "there is no effect lens of this head" })),
    make("colgroup", {}, make("col"), make("col", { class: "share" })),
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "token" }), make("th", { scope: "col", text: "logit" }))),
    make("tbody", {}, ...rows));
}

function drawLogit(where, token, thousandths, most, figure, isTerm = false) {
  const bar = make("span", { class: thousandths < 0 ? "bar lowers" : "bar" });
  bar.style.width = `${Math.min(100, (100 * Math.abs(thousandths)) / (most || 1))}%`;
  return make("tr", { class: isTerm ? "asked" : null }, make("td", {}, chooser(where, token, figure)),
    make("td", { class: "share" }, bar, make("span", { class: "text", text: signed(thousandths / 1000) })));
}

function drawList(name, entries, terms, figuresOfIt, where, side) {
  const rows = [], most = shareOf(Math.max(...entries.filter((_, i) => i % 2 === 1)));
  for (let i = 0; i < entries.length; i += 2) rows.push(drawEntry(where, entries[i], entries[i + 1], most));
  terms.forEach((value, token) => rows.push(drawEntry(where, token, value, most, token === 0)));
  return make("table", { class: "list", "data-list": name, "data-of": side || null },
    make("caption", {}, make("strong", { text: (side && `${side}: `) + TITLES[name] }), ...figuresOfIt.map((text) => make("span", { class: "quiet", text }))),
    make("colgroup", {}, make("col"), make("col", { class: "share" }), ...(HAS_LIFT ? [make("col", { class: "lift" })] : [])),
    make("thead", {}, make("tr", {}, make("th", { scope: "col", text: "token" }), make("th", { scope: "col", text: "prob." }),
      ...(HAS_LIFT ? [make("th", { scope: "col", text: "lift" })] : []))),
    make("tbody", {}, ...rows));
}

// The name of a token in a list, which colours the grid by it where it is kept.
function chooser(where, token, figure = null) {
  const shown = word(token);
  if (!where.kept.includes(token)) return make("span", { class: "word", text: shown, title: shown });
  return make("button", { type: "button", class: "word", text: shown, title: `colour the grid by ${shown}`, "data-token": token, "data-figure": figure,
    "aria-pressed": usesToken() && token === state.token });
}

function drawEntry(where, token, thousandths, most, firstTerm = false) {
  const share = shareOf(thousandths);
  const bar = make("span", { class: "bar" });
  bar.style.width = `${Math.min(100, (100 * share) / most)}%`;
  return make("tr", { class: firstTerm ? "asked" : null }, make("td", {}, chooser(where, token)),
    make("td", { class: "share" }, bar, make("span", { class: "text", text: percent(share) })),
    ...(HAS_LIFT ? [make("td", { class: "lift-of", text: times(liftOf(token, thousandths)) })] : []));
}
