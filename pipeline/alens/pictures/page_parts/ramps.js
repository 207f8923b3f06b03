
// ---- Ramps of colours, of the page of a reading and of an atlas alike; `dark` says whether the page is dark.

const RAMPS = {
  light: { rise: ["#eef3f9", "#a9cbea", "#3d84c0", "#0c3d75"], part: ["#a24b00", "#efb980", "#f1f3f5", "#8fbce5", "#0c3d75"] },
  dark: { rise: ["#1c2733", "#1f5281", "#4a97d2", "#b4dcff"], part: ["#ffb269", "#8a4f17", "#252c34", "#2567a0", "#a5d5ff"] },
};
const ramps = () => RAMPS[dark.matches ? "dark" : "light"];
function quantile(sorted, share) {
  const x = share * (sorted.length - 1), below = Math.floor(x), above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (x - below) * (sorted[above] - sorted[below]);
}
function colour(share, stops) {
  const x = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const from = Math.min(Math.floor(x), stops.length - 2);
  const channel = (hex, i) => parseInt(hex.slice(1 + 2 * i, 3 + 2 * i), 16);
  return [0, 1, 2].map((i) => Math.round(channel(stops[from], i) * (from + 1 - x) + channel(stops[from + 1], i) * (x - from)));
}
function ink(rgb) {
  const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return (luminance + 0.05) ** 2 > 1.05 * 0.05 ? "#000000" : "#ffffff"; // whichever has more contrast, at least 4.5
}
