// A colour for each of the pack's socket types, where a theme has none: on the canvas and, as CSS, in Nodes 2.0.
import { app } from "../../../scripts/app.js";

const COLORS = {
  SVP_MODEL: "#B39DDB",
  SVP_AUDIO_ENCODER: "#80DEEA",
  SVP_FACE_ANALYZER: "#AED581",
  SVP_HEAD_MOTION: "#4DB6AC",
  SVP_STYLE_PRIOR: "#FFB74D",
  SVP_STYLE: "#FFD54F",
  SVP_DATASET: "#BCAAA4",
  SVP_CROP: "#F48FB1",
};

function colorCanvas() {
  const canvas = app.canvas;
  if (!canvas) return;
  for (const table of [canvas.default_connection_color_byType, canvas.constructor.link_type_colors]) {
    for (const [type, color] of Object.entries(COLORS)) table[type] ||= color;
  }
  canvas.setDirty(true, true);
}

function colorPage() {
  const style = document.createElement("style");
  const lines = Object.entries(COLORS).map(([type, color]) => `--color-datatype-${type}: ${color};`);
  style.textContent = `:root { ${lines.join(" ")} }`; // a theme sets its own on the element itself, which comes before this
  document.head.append(style);
}

app.registerExtension({
  name: "SVPPortrait.colors",

  setup() {
    colorPage();
    colorCanvas();
    // Another theme empties the colours of types that it does not know, a moment after the setting has changed.
    app.ui.settings.addEventListener("Comfy.ColorPalette.change", () => setTimeout(colorCanvas, 100));
  },

  afterConfigureGraph: colorCanvas,
});
