
// ---- Colours: a figure becomes a place on a ramp, 0 to 1. Low KL and entropy, which people look for, have strong colours.

const FAR = 3, FEW = 0.02, LEAST_CELLS = 12;

// The ends of a scale of colours: the lowest and highest number, but no far outlier, which lies further from the middle half
// of the numbers than three times its width (Tukey). At most 2 % of the numbers are left out, so that many large ones are no
// outliers. So one odd head does not paint all others alike. As pictures/colour_limits.py.
function limits(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b), most = sorted.length - 1;
  const few = sorted.length < LEAST_CELLS ? 0 : Math.max(1, Math.floor(FEW * sorted.length));
  const lower = quantile(sorted, 0.25), upper = quantile(sorted, 0.75), reach = FAR * (upper - lower);
  const low = Math.max(sorted[0], Math.min(lower - reach, sorted[few])), high = Math.min(sorted[most], Math.max(upper + reach, sorted[most - few]));
  return high > low ? [low, high] : [sorted[0], sorted[most]];
}
// The same around zero, with both sides alike.
const reachOf = (numbers) => limits(numbers.map(Math.abs))[1];

// The scale of some values: its ends as values, the middle of a scale of two sides or null, value -> place on the ramp, and
// whether a value lies beyond the ends. Null where no value is known.
function scaleOf(values, { figure = state.figure, middle = null } = {}) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return null;
  if (figure === "probability") {
    const logs = known.map((value) => Math.log(Math.max(value, 1e-9))), [low, high] = limits(logs);
    return scale(known, Math.exp(low), Math.exp(high), null, (value) => (Math.log(Math.max(value, 1e-9)) - low) / (high - low || 1), false, true);
  }
  if (figure === "lift" || figure === "factor") {
    const reach = Math.max(Math.log(2), reachOf(known.map((value) => Math.log(Math.max(value, 1e-9)))));
    return scale(known, Math.exp(-reach), Math.exp(reach), 1, (value) => 0.5 + Math.log(Math.max(value, 1e-9)) / (2 * reach), true, true);
  }
  if (figure === "logit" || LOGITS.includes(figure)) {
    const reach = Math.max(0.1, reachOf(known));
    return scale(known, -reach, reach, 0, (value) => 0.5 + value / (2 * reach), true);
  }
  const [low, high] = limits(known);
  if (figure === "stream") return scale(known, low, high, null, (value) => 1 - Math.log1p(value) / (Math.log1p(high) || 1), false);
  if (middle !== null) {  // the worse side is no steeper than the better one, so that what is barely worse looks so
    const better = Math.max(middle - low, 0), worse = Math.max(high - middle, better) || 1;
    return scale(known, low, high, middle, (value) => 0.5 + (middle - value) / (2 * (value < middle ? better || 1 : worse)), true);
  }
  return scale(known, low, high, null, (value) => (high > low ? 1 - (value - low) / (high - low) : 0.5), false);
}
function scale(known, low, high, middle, share, twoSided, logarithmic = false) {
  const most = known.reduce((a, b) => Math.max(a, b)), least = known.reduce((a, b) => Math.min(a, b));
  const slack = 1e-9 * Math.max(1, Math.abs(low), Math.abs(high));
  return { low, high, middle, share, most, least, twoSided, logarithmic, beyond: (value) => value > high + slack || value < low - slack };
}

const colourOf = (value, by) => colour(by.share(value), ramps()[by.twoSided ? "part" : "rise"]);
function paint(element, value, by) {
  if (value === null) return;
  const rgb = colourOf(value, by);
  element.style.backgroundColor = `rgb(${rgb.join(",")})`;
  element.style.color = ink(rgb);
  if (by.beyond(value)) element.classList.add("beyond");
}

// The legend of a scale, drawn from the colours themselves: even steps of the ramp's axis.
function drawLegend(by, text) {
  at("legend").hidden = by === null;
  if (by === null) return;
  const valueAt = (x) => (by.logarithmic ? by.low * (by.high / by.low) ** x : by.low + (by.high - by.low) * x);
  const stops = Array.from({ length: 21 }, (_, i) => `rgb(${colourOf(valueAt(i / 20), by).join(",")})`);
  at("low").textContent = (by.beyond(by.least) ? "≤ " : "") + text(by.low);
  at("high").textContent = (by.beyond(by.most) ? "≥ " : "") + text(by.high);
  at("scale").style.background = `linear-gradient(to right, ${stops.join(",")})`;
  const position = by.middle === null || by.high <= by.low ? null : by.logarithmic ? 0.5 : (by.middle - by.low) / (by.high - by.low);
  at("middle").hidden = position === null || position < 0.08 || position > 0.92;
  at("middle").style.left = `${100 * (position ?? 0)}%`;
  at("middle").textContent = by.middle === null ? "" : text(by.middle);
}
const beyondText = (by, text) => {
  if (by === null) return "";
  const ends = [by.beyond(by.least) ? `down to ${text(by.least)}` : "", by.beyond(by.most) ? `up to ${text(by.most)}` : ""].filter(Boolean);
  return ends.length ? ` A cell with a marked corner lies beyond the scale: numbers go ${ends.join(" and ")}.` : "";
};
