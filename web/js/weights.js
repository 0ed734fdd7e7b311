// Shows the page's list of missing models for weights that are chosen by their folder. The page looks for what the widgets of
// a node name; so every file in a template's `properties.models` gets a widget of its own, which is hidden and never sent.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const PREFIX = "SVP";
const present = new Map(); // folder of the host -> the files in it

async function readFolders(folders) {
  for (const folder of folders) {
    const answer = await api.fetchApi(`/models/${encodeURIComponent(folder)}`);
    const files = answer.ok ? await answer.json() : [];
    present.set(folder, files.map((file) => file.replaceAll("\\", "/")));
  }
}

// Whether the node still names the folder of its template's weights.
function isChosen(node, models) {
  const folders = models.filter(({ name }) => name.includes("/")).map(({ name }) => name.split("/")[0]);
  return node.widgets?.some(({ value }) => folders.includes(String(value).replace(/\/$/, "")));
}

app.registerExtension({
  name: "SVPPortrait.weights",

  async beforeConfigureGraph(graph) {
    const models = (graph?.nodes ?? []).flatMap((node) => node.properties?.models ?? []);
    await readFolders(new Set(models.map((model) => model.directory)));
  },

  loadedGraphNode(node) {
    const models = node.properties?.models ?? [];
    if (!node.comfyClass?.startsWith(PREFIX) || !isChosen(node, models)) return;
    const size = [...node.size];
    for (const { name, directory } of models) {
      const options = { values: () => present.get(directory) ?? [], serialize: false, hidden: true };
      const widget = node.addWidget("combo", name, name, () => {}, options);
      widget.serialize = false;
      widget.hidden = true;
    }
    node.setSize(size);
  },

  refreshComboInNodes: () => readFolders([...present.keys()]),
});
