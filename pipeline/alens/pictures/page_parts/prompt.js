
// ---- The prompt, shaded by where the chosen head looks

// Shares of the chosen head at a position, by place in the prompt; what comes after the position has none.
const sharesOf = (where, shade) => (shade === "none" || !HAS_LOOKS || onModel() ? [] : where[shade][state.cell].map((thousandths) => thousandths / 1000));

function drawPrompt(strip, index, chosenPlace, name) {
  const places = new Map(sheet.prompts[index].places.map((where, number) => [where.position, number]));
  const shares = sharesOf(sheet.prompts[index].places[chosenPlace], state.shade), most = Math.max(...shares, 0.001);
  const pieces = sheet.prompts[index].tokens.map((_, position) => {
    const shown = wordAt(index, position), share = shares[position];
    const shaded = share === undefined ? "" : `: ${SHADES[state.shade]} ${percent(share)}`;
    let piece = make("span", { class: "piece", text: shown, title: `not read: see --position${shaded}` });
    if (places.has(position)) {
      const number = places.get(position), chosen = number === chosenPlace;
      piece = make("button", {
        type: "button", class: "piece", text: shown, [`data-${name}`]: number, "aria-pressed": chosen, tabindex: chosen ? 0 : -1,
        "aria-label": `position ${position}: ${shown}${shaded}`, title: shaded ? `${shown}${shaded}` : null,
      });
    }
    if (shaded) {
      const rgb = colour(share / most, ramps().rise);
      piece.style.backgroundColor = `rgb(${rgb.join(",")})`;
      piece.style.color = ink(rgb);
    }
    return piece;
  });
  const scrolled = strip.scrollTop;
  for (const [turn, position] of sheet.prompts[index].turns.toReversed()) pieces.splice(position, 0, make("span", { class: "turn", text: turn }));
  strip.replaceChildren(...pieces);
  strip.scrollTop = scrolled;
  showInside(strip, strip.querySelector("[aria-pressed=true]"));
}

// Scroll a box, and nothing else, until a part of it is in sight; what sticks to its edges covers `top` and `left`.
function showInside(box, part, top = 0, left = 0) {
  if (!part) return;
  const outer = box.getBoundingClientRect(), inner = part.getBoundingClientRect();
  if (inner.top < outer.top + top) box.scrollTop -= outer.top + top - inner.top + 2;
  else if (inner.bottom > outer.top + box.clientHeight) box.scrollTop += inner.bottom - outer.top - box.clientHeight + 2;
  if (inner.left < outer.left + left) box.scrollLeft -= outer.left + left - inner.left + 2;
  else if (inner.right > outer.left + box.clientWidth) box.scrollLeft += inner.right - outer.left - box.clientWidth + 2;
}

function drawSources() {
  at("sources").hidden = state.shade === "none" || onModel();
  const shares = sharesOf(place(), state.shade);
  const places = shares.map((_, position) => position).sort((a, b) => shares[b] - shares[a]).slice(0, SOURCES).filter((position) => shares[position] >= 0.01);
  const texts = places.map((position) => `${position} ‘${wordAt(state.prompt, position)}’ ${percent(shares[position])}`);
  at("sources").textContent = `${state.shade === "looks" ? "Looks at" : "Moves from"}: ${texts.join(", ") || "nothing from 1% on"}`;
}

function drawTokenChoice() {
  const groups = [["asked for with --token", []], ["kept at every position", []], ["the model's list", []], [`lists of ${PART}s`, []]];
  const own = new Set(place().model.filter((_, i) => i % 2 === 0)), everywhere = new Set(sheet.everywhere);
  for (const token of place().kept) groups[token < sheet.num_terms ? 0 : everywhere.has(token) ? 1 : own.has(token) ? 2 : 3][1].push(token);
  const parts = groups.filter(([, tokens]) => tokens.length).map(([label, tokens]) =>
    make("optgroup", { label }, ...tokens.map((token) => make("option", { value: token, text: word(token) }))));
  if (!place().kept.includes(state.token)) parts.unshift(make("option", { value: state.token, text: word(state.token) }));
  at("token").replaceChildren(...parts);
  at("token").value = String(state.token);
}
