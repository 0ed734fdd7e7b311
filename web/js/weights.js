// Shows the page's list of missing models for weights that are chosen by their folder. The page looks for what the widgets of
// a node name; so every file in a template's `properties.models` gets a widget of its own, which is hidden and never sent.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const PREFIX = "SVP";
const present = new Map(); // folder of the host -> the files in it

app.registerExtension({
  name: "SVPPortrait.weights",

  async beforeConfigureGraph(graph) {
    const models = (graph?.nodes ?? []).flatMap((node) => node.properties?.models ?? []);
    for (const folder of new Set(models.map((model) => model.directory))) {
      const answer = await api.fetchApi(`/models/${encodeURIComponent(folder)}`);
      const files = answer.ok ? await answer.json() : [];
      present.set(folder, files.map((file) => file.replaceAll("\\", "/")));
    }
  },

  loadedGraphNode(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    const size = [...node.size];
    for (const { name, directory } of node.properties?.models ?? []) {
      if (node.widgets?.some((widget) => widget.value === name)) continue;
      const options = { values: present.get(directory) ?? [], serialize: false, hidden: true };
      const widget = node.addWidget("combo", name, name, () => {}, options);
      widget.serialize = false;
      widget.hidden = true;
      node.setSize(size);
    }
  },
});
