// One's share of the pool in the WebUI: a switch for work that can wait, and what becomes of the group's GPU time. The
// server rings when the group comes near its quota, when it is used up, and when it goes on.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

const TEXT = {
  name: "Cluster",
  lane: "My jobs may wait",
  hint: "Batch: they run where no interactive job wants to. For jobs you queue from now on.",
  problem: "The cluster did not answer. Try again in a moment.",
};
const SHARE = "/cluster/api/v1/share";

export const part = document.createElement("section");
part.className = "cluster-session";
part.style.display = "none"; // until we know; the frontend's styles win over `hidden`

const notice = document.createElement("p");
notice.className = "cluster-news bad";
const lane = document.createElement("input");
lane.type = "checkbox";
lane.addEventListener("change", choose);
const label = document.createElement("label");
label.title = TEXT.hint;
label.append(lane, ` ${TEXT.lane}`);
part.append(label);

async function ask(method, body) {
  const headers = { Accept: "application/json", "Content-Type": "application/json" };
  const response = await fetch(SHARE, { method, headers, body: body && JSON.stringify(body) });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.error?.message || TEXT.problem);
  return answer;
}

function show(share) {
  lane.checked = share.lane === "batch";
  notice.textContent = share.quota?.notice ?? "";
  if (notice.textContent) part.prepend(notice);
  else notice.remove();
  part.style.display = "";
}

async function choose() {
  lane.disabled = true;
  try {
    show(await ask("PATCH", { lane: lane.checked ? "batch" : "interactive" }));
  } catch (error) {
    lane.checked = !lane.checked;
    app.extensionManager.toast.add({ severity: "error", summary: TEXT.name, detail: error.message, life: 8000 });
  } finally {
    lane.disabled = false;
  }
}

// Quietly: without an answer the panel shows the rest.
export async function lookAtShare() {
  await ask("GET").then(show, () => {});
}

api.addEventListener("cluster_share", ({ detail }) => {
  if (detail?.notice) {
    app.extensionManager.toast.add({ severity: "warn", summary: TEXT.name, detail: detail.notice, life: 15_000 });
  }
  lookAtShare();
});
