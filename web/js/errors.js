// Says why a node of the pack did not accept its inputs, in the node's own words: some front ends only say that it did not.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";

const PREFIX = "SVP";
const WAIT = 200; // milliseconds between two looks
const LOOKS = 50;
const LIFE = 60_000; // milliseconds that a message stays

function showErrors(errors) {
  for (const [id, { class_type: type, errors: found }] of Object.entries(errors)) {
    if (!type.startsWith(PREFIX)) continue;
    for (const { details } of found.filter((each) => each.type === "custom_validation_failed")) {
      const title = app.graph.getNodeById(id)?.title ?? type;
      app.extensionManager.toast.add({ severity: "error", summary: title, detail: details, life: LIFE });
    }
  }
}

// The page asks the host after this event and keeps the host's answer, whatever it is, in `lastNodeErrors`.
function follow() {
  const before = app.lastNodeErrors;
  let looks = 0;
  const timer = setInterval(() => {
    const now = app.lastNodeErrors;
    if (now && now !== before) showErrors(now);
    if ((now && now !== before) || ++looks === LOOKS) clearInterval(timer);
  }, WAIT);
}

app.registerExtension({
  name: "SVPPortrait.errors",
  setup: () => api.addEventListener("promptQueueing", follow),
});
