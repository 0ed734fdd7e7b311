// Folds away the widgets that a node's schema calls advanced, for front ends that leave them open; "Show Advanced" in the
// node's menu unfolds them. What differs from its default, or is connected, is never hidden.
import { app } from "../../../scripts/app.js";

const PREFIX = "SVP";

const advancedWidgets = (node) => (node.widgets ?? []).filter((widget) => widget.options?.advanced);

function isInUse(node, widget) {
  const spec = node.constructor.nodeData?.input ?? {};
  const given = spec.required?.[widget.name] ?? spec.optional?.[widget.name];
  const linked = node.inputs?.some((input) => input.widget?.name === widget.name && input.link != null);
  return linked || (given !== undefined && widget.value !== given[1]?.default);
}

app.registerExtension({
  name: "SVPPortrait.advanced",

  nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    const folded = advancedWidgets(node).filter((widget) => !widget.advanced);
    for (const widget of folded) {
      widget.advanced = true;
      // Not drawing it is up to `advanced`; its row is only given up by a widget that is hidden.
      Object.defineProperty(widget, "hidden", { get: () => !node.showAdvanced, set: () => {}, configurable: true });
    }
    if (folded.length) node.setSize([node.size[0], node.computeSize()[1]]);
  },

  loadedGraphNode(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    if (advancedWidgets(node).some((widget) => isInUse(node, widget))) node.showAdvanced = true;
  },
});
