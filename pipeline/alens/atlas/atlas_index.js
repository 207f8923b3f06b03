// Colours the grid of an atlas by the figure that is chosen, and finds the heads that write a token.
// Text of tokens and rows only ever becomes text (textContent), never markup.

const atlas = await heldData();
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const at = (id) => document.getElementById(id);
const cells = [...document.querySelectorAll(".cell")];

// The colours of the page of `alens read` (pictures/reading_page.js).
const RAMPS = {
  light: { rise: ["#eef3f9", "#a9cbea", "#3d84c0", "#0c3d75"], part: ["#a24b00", "#efb980", "#f1f3f5", "#8fbce5", "#0c3d75"] },
  dark: { rise: ["#1c2733", "#1f5281", "#4a97d2", "#b4dcff"], part: ["#ffb269", "#8a4f17", "#252c34", "#2567a0", "#a5d5ff"] },
};
// The ends of the colours: shares of the heads that lie below and above them, so that one head does not paint all others alike.
const ENDS = [0.02, 0.98];

function colour(share, stops) {
  const x = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(x), stops.length - 2);
  const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  return [0, 1, 2].map((i) => Math.round(channel(stops[first], i) * (first + 1 - x) + channel(stops[first + 1], i) * (x - first)));
}
function ink(rgb) {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return (0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05) ** 2 > 1.05 * 0.05 ? "#000000" : "#ffffff";
}
function number(value) {  // three digits that count, or fewer
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : size >= 0.01 ? value.toFixed(2) : size >= 0.001 ? value.toFixed(3) : value < 0 ? "-0" : "0";
}
function quantile(sorted, share) {
  const x = share * (sorted.length - 1), low = Math.floor(x);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (x - low);
}

function paint() {
  const figure = atlas.figures[at("figure").selectedIndex];
  const known = figure.values.filter((value) => value !== null).sort((a, b) => a - b);
  let [low, high] = ENDS.map((share) => quantile(known, share));
  const signed = low < 0 && high > 0;
  if (signed) { high = Math.max(high, -low); low = -high; }
  const stops = RAMPS[dark.matches ? "dark" : "light"][signed ? "part" : "rise"];
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
at("figure").addEventListener("change", paint);
dark.addEventListener("change", paint);
paint();
