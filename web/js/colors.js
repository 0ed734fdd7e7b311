// A colour for each of the pack's socket types, where a theme has none: on the canvas and, as CSS, in Nodes 2.0.
import { app } from "../../../scripts/app.js";

const COLORS = {
  SVP_MODEL: "#B39DDB",
  SVP_AUDIO_ENCODER: "#80DEEA",
  SVP_FACE_ANALYZER: "#AED581",
  SVP_HEAD_MOTION: "#4DB6AC",
  SVP_MOTION: "#4FC3F7",
  SVP_MOTION_STYLE: "#DCE775",
  SVP_MOTION_GENERATOR: "#7986CB",
  SVP_LIVEPORTRAIT: "#FF8A65",
  SVP_STYLE_PRIOR: "#FFB74D",
  SVP_STYLE: "#FFD54F",
  SVP_DATASET: "#BCAAA4",
  SVP_CROP: "#F48FB1",
};

// A theme sets the colours it knows and empties all others, whenever it is chosen: ours stand where it has none.
function fallBack(table, type, color) {
  let chosen = table[type];
  Object.defineProperty(table, type, {
    get: () => chosen || color,
    set: (value) => {
      chosen = value;
    },
    enumerable: true,
    configurable: true,
  });
}

function colorCanvas() {
  for (const table of [app.canvas.default_connection_color_byType, app.canvas.constructor.link_type_colors]) {
    for (const [type, color] of Object.entries(COLORS)) fallBack(table, type, color);
  }
  app.canvas.setDirty(true, true);
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
  },
});
