// Brings the example media of a template into the input folder when the template is opened: uploaded as if chosen by hand, so
// that a file of the same name that is already there is never overwritten (the host then gives ours another name).
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const MARK = "svp_media"; // in `extra` of a template: the files of workflows/assets that its nodes name
const pack = new URL(import.meta.url).pathname.split("/extensions/")[1].split("/")[0]; // the pack's folder, URL-encoded
const arrived = new Set();

async function upload(name) {
  const asset = await api.fetchApi(`/workflow_templates/${pack}/assets/${name}`);
  if (!asset.ok) throw new Error(`${name}: ${asset.status} ${asset.statusText}`);
  const body = new FormData();
  body.append("image", new File([await asset.blob()], name)); // the host takes every kind of media by this name
  body.append("type", "input");
  const answer = await api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  const stored = (await answer.json()).name;
  arrived.add(stored);
  return stored;
}

app.registerExtension({
  name: "SVPPortrait.media",

  async beforeConfigureGraph(graph) {
    const names = graph?.extra?.[MARK];
    if (!Array.isArray(names)) return;
    delete graph.extra[MARK]; // once: from now on the graph is the user's
    try {
      const stored = new Map(await Promise.all(names.map(async (name) => [name, await upload(name)])));
      for (const node of graph.nodes) {
        if (!Array.isArray(node.widgets_values)) continue;
        node.widgets_values = node.widgets_values.map((value) => stored.get(value) ?? value);
      }
    } catch (error) {
      app.extensionManager.toast.add({
        severity: "warn",
        summary: "Example media not copied",
        detail: `Choose files of your own, or copy workflows/assets of the pack into the input folder. ${error.message}`,
      });
    }
  },

  // The lists of the load nodes were read before the files came.
  loadedGraphNode(node) {
    for (const widget of node.widgets ?? []) {
      const values = widget.options?.values;
      if (arrived.has(widget.value) && Array.isArray(values) && !values.includes(widget.value)) values.push(widget.value);
    }
  },
});
