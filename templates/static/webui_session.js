// One's own session in the WebUI: its restart, and what its user must know of it: that it crashed and is back, that new
// nodes or models wait for a restart, that custom nodes could not be loaded. The server rings when one of these changes.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

const TEXT = {
  name: "Cluster",
  restart: "Restart my session",
  restartNow: "Restart now",
  restartHint: "Ends and starts your own ComfyUI process. Your jobs are not touched.",
  restarting: "Restarting…",
  restarted: "Your session is back.",
  crashed: "Your session ended unexpectedly and was brought back. Jobs are not touched.",
  outdated: "New nodes or models are available.",
  reload: "Your session has the new nodes and models. Reload the page to see new panels, too.",
  reloadNow: "Reload the page",
  packs: (n) => (n === 1 ? "1 node pack failed to load" : `${n} node packs failed to load`),
  gaveUp: "Your session ended several times within a minute, so it is not started again by itself. Your jobs are not touched.",
  failed: "Your session does not run.",
  why: "See what its log says",
  problem: "The cluster did not answer. Try again in a moment.",
};
const SESSION = "/cluster/api/v1/session";
const SEEN = "comfyui.cluster.seen."; // what this tab has been told of, so that a reload does not tell it again
const FRESH_MS = 3_600_000;

let session = null;
let restarting = false;
let renewed = false; // restarted because of something new, and not reloaded since

export const part = document.createElement("section");
part.className = "cluster-session";

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function button(text, onClick) {
  const made = element("button", "cluster-button", text);
  made.disabled = restarting;
  made.onclick = onClick;
  return made;
}

function toast(severity, detail, life) {
  app.extensionManager.toast.add({ severity, summary: TEXT.name, detail, life });
}

async function ask(method, path) {
  const response = await fetch(path, { method, headers: { Accept: "application/json" } });
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.error?.message || TEXT.problem);
  return body;
}

// See how the session is, tell once what is new, and show the rest in the panel.
export async function look() {
  try {
    session = await ask("GET", SESSION);
  } catch {
    return; // the queue's part of the panel says so
  }
  const recent = session.crashed_ms && Date.now() - session.crashed_ms < FRESH_MS;
  if (session.gave_up) once(`up${session.crashed_ms}`, "error", TEXT.gaveUp);
  else if (session.state === "running" && recent) once(`crash${session.crashed_ms}`, "warn", TEXT.crashed);
  if (session.outdated) once(`old${session.started_ms}`, "info", TEXT.outdated);
  show();
}

function once(name, severity, detail) {
  if (sessionStorage.getItem(SEEN + name)) return;
  sessionStorage.setItem(SEEN + name, "1");
  toast(severity, detail, severity === "error" ? 30_000 : 12_000);
}

function show() {
  const news = [];
  if (session?.gave_up || session?.state === "failed") news.push(failure());
  else if (session?.outdated) news.push(notice(TEXT.outdated, button(TEXT.restartNow, restart)));
  else if (renewed) news.push(notice(TEXT.reload, button(TEXT.reloadNow, () => location.reload())));
  if (session?.failed_packs?.length) news.push(packs(session.failed_packs));
  const again = button(restarting ? TEXT.restarting : TEXT.restart, restart);
  part.replaceChildren(...news, again, element("p", "cluster-note", TEXT.restartHint));
}

function notice(text, ...more) {
  const box = element("div", "cluster-news");
  box.setAttribute("role", "status");
  box.append(element("p", "", text), ...more);
  return box;
}

function failure() {
  const link = element("a", "", TEXT.why);
  link.href = "/cluster/starting";
  link.target = "_blank";
  const box = notice(session.gave_up ? TEXT.gaveUp : TEXT.failed, link);
  box.classList.add("bad");
  return box;
}

function packs(failed) {
  const box = element("details");
  const list = element("ul", "cluster-packs");
  list.append(...failed.map((pack) => element("li", "", `${pack.pack}: ${pack.error}`)));
  box.append(element("summary", "", TEXT.packs(failed.length)), list);
  return box;
}

async function restart() {
  const fresh = session?.outdated;
  restarting = true;
  show();
  try {
    session = await ask("POST", `${SESSION}/restart`);
    renewed ||= Boolean(fresh);
    toast("success", TEXT.restarted, 4000);
    if (fresh) app.extensionManager.command.execute("Comfy.RefreshNodeDefinitions");
  } catch (error) {
    toast("error", error.message, 8000);
  } finally {
    restarting = false;
    await look();
  }
}

api.addEventListener("cluster_session", look);
api.addEventListener("reconnected", look);
show();
