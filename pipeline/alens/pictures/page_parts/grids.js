
// ---- The grid of each view: a table of buttons, one stop of the Tab key, gone through with the arrow keys

const MODEL = "model";
const onModel = () => state.view === "layers" && state.column === MODEL;
const WIDEST = 72;

let grid = { key: null, rows: [] };

// What a view is made of: columns (`title`, `long`), rows of cells, each null or with value, texts, label and what a click chooses.
const DRAWN = { heads: headsView, token: tokenView, layers: layersView, pair: pairView };

function drawGrid() {
  const key = JSON.stringify([state.view, state.prompt, state.figure, state.reading, state.rank, state.token, state.order, state.column, dark.matches,
    state.view === "heads" || state.view === "pair" ? state.place : null, state.view === "pair" ? [state.other, state.otherPlace] : null]);
  if (key !== grid.key) {
    const drawn = DRAWN[state.view]();
    grid = { ...drawn, key, rows: drawn.rows.map((row) => row.cells.map((cell) => cell && drawCell(cell, drawn))) };
    const corner = make("td", { class: "corner" });
    const top = drawn.groups ? [make("tr", {}, corner, ...drawn.groups.map(([text, span]) => make("th", { colspan: span, scope: "colgroup", class: "group", text })))] : [];
    const heads = drawn.columns.map((column) => make("th", { scope: "col", title: column.long ?? null }, make("span", { text: column.title })));
    at("grid").replaceChildren(
      make("thead", {}, ...top, make("tr", {}, drawn.groups ? make("td", { class: "corner" }) : corner, ...heads)),
      make("tbody", {}, ...drawn.rows.map((row, r) => make("tr", {}, make("th", { scope: "row", text: row.title }), ...grid.rows[r].map((cell) => make("td", {}, ...(cell ? [cell] : [])))))));
    at("grid").setAttribute("aria-label", `${drawn.caption}: arrow keys move, Enter shows its lists`);
    at("left").setAttribute("aria-label", drawn.caption);
    fit();
  }
  for (const pressed of at("grid").querySelectorAll('[aria-pressed="true"]')) pressed.setAttribute("aria-pressed", "false");
  for (const stop of at("grid").querySelectorAll('[tabindex="0"]')) stop.tabIndex = -1;
  const chosen = grid.rows.flat().filter((cell) => cell && isPressed(cell));
  for (const cell of chosen) cell.setAttribute("aria-pressed", "true");
  const stop = chosen[0] ?? grid.rows.flat().find((cell) => cell);
  if (stop) stop.tabIndex = 0;
  drawLegend(grid.scale, grid.text);
  at("meaning").textContent = grid.meaning;
  showChosen();
}

const showChosen = () => showInside(at("scroll"), at("grid").querySelector('[aria-pressed="true"]'), at("grid").tHead.offsetHeight, 60);

function isPressed(cell) {
  const of = cell.chooses;
  return (of.cell === undefined || of.cell === state.cell) && (of.place === undefined || of.place === state.place) && (of.layer === undefined || of.layer === state.layer);
}

function drawCell(cell, drawn) {
  const button = make("button", { type: "button", class: "cell", "aria-pressed": "false", tabindex: -1, "aria-label": cell.label, title: drawn.dense ? cell.label : null,
    "data-cell": cell.chooses.cell ?? null, "data-at": cell.chooses.place ?? null, "data-layer": cell.chooses.layer ?? null, "data-side": cell.side ?? null });
  button.chooses = cell.chooses;
  const by = cell.by ?? drawn.scale;
  if (cell.value !== null && by) {
    paint(button, cell.value, by);
    if (by.beyond(cell.value)) button.setAttribute("aria-label", `${cell.label}, beyond the scale`);
  }
  for (const [name, text, title] of drawn.dense ? [] : cell.texts) button.append(make("span", { class: name, text, title: title ?? null }));
  return button;
}

// Cells are as wide as there is room for, between what can be hit and what can be read at a glance.
function fit() {
  const wide = window.innerWidth >= 992, heads = Math.max(...grid.rows.map((row) => row.length), 1);
  const room = at("columns").clientWidth - (wide ? 400 + 32 : 0) - grid.aside - 30;
  const gap = grid.dense ? 1 : 3, least = grid.dense ? (wide ? 10 : 24) : state.view === "layers" ? (wide ? 44 : 52) : wide ? 64 : 70;
  const width = Math.min(grid.dense ? 44 : grid.widest ?? WIDEST, Math.max(least, Math.floor(room / heads) - gap));
  at("grid").className = `${grid.dense ? "dense" : ""} ${grid.slanted && width < 44 ? "slanted" : ""}`;
  at("scroll").style.setProperty("--cell", `${width}px`);
  at("scroll").style.setProperty("--aside", `${grid.aside}px`);
}

const token = () => `‘${word(state.token)}’`;
const titlesOfHeads = () => sheet.heads.map((head) => ({ title: ON_HEADS ? `head ${head}` : sheet.site }));
const nothing = () => nothingAt(place());
const middleOf = (where) => (state.figure === "kl" ? nothingAt(where) : null);

// A cell of a head at a place, with its number and, for figures without a token, the first token of its list. `tint` is the
// number that its colour shows, where this is another.
function headCell(where, cell, value, chooses, { context = "", tint = value } = {}) {
  const worse = state.figure === "kl" && value !== null && aboveAt(where, value);
  const list = isLogit() ? [] : where[state.reading].lists[state.rank][cell], shown = list.length ? word(list[0]) : NONE;
  const silent = !isLogit() && saysNothing(cell, state.reading), texts = [];
  let label = `${longNameOf(cell)}${context}: ${FIGURES[state.figure]} ${asText(value)}${worse ? ", above the mean output" : ""}${usesToken() ? "" : `, first token ${shown}`}`;
  if (silent) {
    label += `, ${sheet.nothing_means}`;
    texts.push(["nothing", "! nothing", sheet.nothing_means]);
  } else if (!usesToken()) texts.push(["first", shown, shown]);
  texts.push(["number", (worse ? `${ABOVE} ` : "") + asText(value)]);
  if (state.figure === "written" && where === place() && suppresses(cell)) {
    texts.push(["nothing", "knows it", sheet.suppressed_means]);
    label += `, ${sheet.suppressed_means}`;
  }
  return { value: tint, texts, label, chooses };
}

function headsView() {
  const values = figuresAt(place()), by = scaleOf(values, { middle: middleOf(place()) });
  return {
    caption: ON_HEADS ? "Heads at one position" : "Layers at one position",
    columns: titlesOfHeads(), aside: 66, scale: by, text: asText, widest: ON_HEADS ? WIDEST : 176,
    rows: sheet.layers.map((layer) => ({
      title: `layer ${layer}`,
      cells: sheet.heads.map((head) => {
        const cell = cellOf.get(`${layer}.${head}`);
        return cell === undefined ? null : headCell(place(), cell, values[cell], { cell });
      }),
    })),
    meaning: meaning(by),
  };
}

function meaning(by) {
  if (by === null) return `${token()} is in none of the lists here, or there was no room for it: --token keeps it everywhere.`;
  const part = onModel() ? "layer" : PART, row = place().kept.indexOf(state.token), model = row < 0 || !usesToken() || state.view !== "heads" ? null : place().model_kept[row];
  const said = {
    kl: `KL(model, ${part}) in nats: how far the ${part}'s distribution is from the model's output. 0 is the model itself. ` + meanOutput(),
    entropy: `Entropy of the ${part}'s distribution in nats: low where it is sure, ${Math.log(sheet.vocabulary).toFixed(2)} where all tokens are equally likely.` +
      (state.view === "heads" ? ` The model's own: ${nats(place().entropy)}.` : ""),
    probability: `Probability of ${token()}.` + (model === null ? "" : ` The model's own: ${percent(shareOf(model))}.`),
    written: `What each ${PART} writes on ${token()}, in logits: blue raises it, orange lowers it, 0 is no change. “knows it” marks a ${PART} whose lens raises it all the same.`,
    effect: `What the model loses of the logit of ${token()} without each ${PART}, as its effect lens says: blue is raised by the ${PART}, orange lowered.`,
    lift: `Lift of ${token()}: its probability over its share of the mean output. Above 1, the ${part} raises it.` +
      (model === null ? "" : ` The model's own: ${times(liftOf(state.token, model))}.`),
  }[state.figure];
  const left = usesToken() && place().left_out && state.view === "heads" ? ` The menu has no room for ${place().left_out} tokens of the lists here: --token keeps a token.` : "";
  return said + beyondText(by, asText) + left;
}

function meanOutput() {
  if (onModel()) return "";
  if (nothing() === null) return "These lenses do not hold the mean output, so there is no KL to compare with.";
  return state.view === "heads" || state.view === "pair"
    ? `The mean output, which looks at nothing, has ${nothing().toFixed(2)} here: ${ABOVE} marks a KL above that, worse than no ${PART} at all.`
    : "Colours are of the mean output's KL at the same position less this: blue, above 0, is nearer to the model than a reading that looks at nothing.";
}

// Where many positions stand side by side, KL is beside that of each one's own mean output: below 0 is better.
// The model itself, whose early layers are far above it, has a scale of one side, steeper near 0.
const isBeside = () => state.figure === "kl" && nothing() !== null && !onModel();
const beside = (where, value) => (value !== null && isBeside() ? nothingAt(where) - value : value);
const scaleOfMany = (values) => scaleOf(values, isBeside() ? { figure: "logit" } : onModel() && state.figure === "kl" ? { figure: "stream" } : {});
const manyText = (value) => (isBeside() ? signed(value) : asText(value));
const tinted = (values, where) => values.map((value) => beside(where, value));

// One token over all heads and positions.
function tokenView() {
  const places = prompt().places, numbers = places.map((where) => figuresAt(where)), values = numbers.map((of, index) => tinted(of, places[index]));
  const by = scaleOfMany(values.flat()), order = sheet.cells.map((_, cell) => cell);
  if (state.order === "strength" && by !== null) {
    const strength = order.map((cell) => Math.max(...values.map((of) => (of[cell] === null ? -1 : Math.abs(by.twoSided ? by.share(of[cell]) - 0.5 : by.share(of[cell]))))));
    order.sort((a, b) => strength[b] - strength[a]);
  }
  const kept = values.filter((of) => of.some((value) => value !== null)).length;
  const lacking = kept < places.length && by !== null ? ` It is kept at ${kept} of ${places.length} positions: --token keeps it at all.` : "";
  return {
    caption: `${PART === "head" ? "Heads" : "Layers"} × positions`, dense: true, slanted: true, aside: 44, scale: by, text: manyText,
    columns: places.map((where) => ({ title: wordAt(state.prompt, where.position), long: `position ${where.position}` })),
    rows: order.map((cell) => ({
      title: nameOf(cell),
      cells: places.map((where, index) => ({
        value: values[index][cell], chooses: { cell, place: index },
        label: `${nameOf(cell)}, position ${where.position} ${wordAt(state.prompt, where.position)}: ${FIGURES[state.figure]} ${asText(numbers[index][cell])}`,
      })),
    })),
    meaning: meaning(by) + lacking,
  };
}

// Layers x positions: of one column of heads, or of the model itself, whose stream after each layer is unembedded.
function layersView() {
  const places = prompt().places, source = onModel() ? "stream" : undefined;
  const layers = onModel() ? sheet.stream_layers : sheet.layers;
  const indices = layers.map((layer, index) => (onModel() ? index : cellOf.get(`${layer}.${state.column}`)));
  const numbers = places.map((where) => figuresAt(where, source)), values = numbers.map((of, index) => tinted(of, places[index]));
  const by = scaleOfMany(values.flatMap((of) => indices.map((index) => (index === undefined ? null : of[index]))));
  return {
    caption: onModel() ? "The model: layers × positions" : `Head ${state.column} of each layer × positions`,
    aside: 66, scale: by, text: manyText, slanted: true, dense: window.innerWidth >= 992 && places.length > 18,
    columns: places.map((where) => ({ title: wordAt(state.prompt, where.position), long: `position ${where.position}` })),
    rows: layers.map((layer, row) => ({
      title: `layer ${layer}`,
      cells: places.map((where, index) => {
        const cell = indices[row];
        if (cell === undefined) return null;
        const context = `, position ${where.position} ${wordAt(state.prompt, where.position)}`;
        if (!onModel()) return headCell(where, cell, numbers[index][cell], { cell, place: index }, { context, tint: values[index][cell] });
        const list = where.stream.lists[state.rank][cell], shown = list.length ? word(list[0]) : NONE;
        return { value: values[index][cell], chooses: { layer: cell, place: index }, texts: [["first", shown, shown], ["number", asText(numbers[index][cell])]],
          label: `after layer ${layer}${context}: ${FIGURES[state.figure]} ${asText(numbers[index][cell])}, first token ${shown}` };
      }),
    })),
    meaning: (onModel() ? "The residual stream after each layer, through the last norm and the unembedding (the logit lens): what the model would say if it stopped there. " : "") + meaning(by),
  };
}

// Two prompts, or two positions of one, and their difference.
function pairView() {
  const a = figuresAt(place()), b = figuresAt(otherPlace()), both = scaleOf([...a, ...b], { middle: middleOf(place()) });
  const differences = a.map((value, cell) => differs(value, b[cell]));
  const by = scaleOf(differences, { figure: ["probability", "lift"].includes(state.figure) ? "factor" : "logit" });
  const sides = [["A", a, both, asText, state.prompt, place()], ["B", b, both, asText, state.other, otherPlace()], ["B − A", differences, by, differenceText, null, null]];
  if (["probability", "lift"].includes(state.figure)) sides[2][0] = "B ÷ A";
  return {
    caption: "Two prompts and their difference", dense: true, aside: 66, scale: by, text: differenceText,
    groups: sides.flatMap(([name], index) => (index ? [["", 1], [name, sheet.heads.length]] : [[name, sheet.heads.length]])),
    columns: sides.flatMap((_, index) => [...(index ? [{ title: "" }] : []), ...sheet.heads.map((head) => ({ title: ON_HEADS ? `${head}` : sheet.site }))]),
    rows: sheet.layers.map((layer) => ({
      title: `layer ${layer}`,
      cells: sides.flatMap(([name, values, scaleOfSide, text], index) => [...(index ? [null] : []), ...sheet.heads.map((head) => {
        const cell = cellOf.get(`${layer}.${head}`);
        return cell === undefined ? null : { value: values[cell], by: scaleOfSide, side: name, chooses: { cell }, label: `${longNameOf(cell)}, ${name}: ${text(values[cell])}` };
      })]),
    })),
    meaning: `${capital(FIGURES[state.figure].replace("a token", token()))}: A and B share a scale${both === null ? "" : `, ${asText(both.low)} to ${asText(both.high)}`}; the legend is of the difference, ` +
      `blue where B is higher.` + beyondText(by, differenceText),
  };
}
