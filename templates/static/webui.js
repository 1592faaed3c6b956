// The cluster's part of the WebUI: a sidebar tab with one's own queue and session, and one's place in line beside Run.
// Loaded as an extension by the official frontend, which waits for it: the one thing awaited at load has a short limit.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { STYLE, badge, describe, inLine, markNativeQueue, setClock } from "./webui_outlook.js";
import { look, part as sessionPart } from "./webui_session.js";
import { lookAtShare, part as sharePart } from "./webui_share.js";

const TEXT = {
  name: "Cluster",
  tooltip: "Your jobs in the cluster",
  idle: "No jobs waiting or running.",
  cancel: "Cancel",
  home: "Home",
  gallery: "Gallery",
  account: "Account",
  admin: "Administration",
  failed: "The cluster did not answer. Reload the page to try again.",
  signedOut: "You are signed out. Save what you need, then reload the page to sign in again.",
};
const BASE = "/cluster/api/v1";
const EVERY_MS = 3000;
const SOON_MS = 150;
const ACTIVE = new Set(["queued", "assigned", "running", "collecting"]);

const STARTER = "/extensions/comfyui-cluster/starter.json";
const STARTER_LIMIT_MS = 2000;
const FITTED = "comfyui.cluster.fitted";
const FIT_AFTER_MS = 400;

// What the frontend's default graph asks of a pool, which differs between versions of the frontend: node classes, and models of theirs.
function needs(graph) {
  const wanted = new Set();
  for (const node of graph.nodes || []) {
    if (/^(Markdown)?Note$/.test(node.type)) continue;
    wanted.add(node.type);
    for (const value of node.widgets_values || []) {
      if (/\.(safetensors|ckpt|pth?|gguf)$/.test(value)) wanted.add(`${node.type}/${value}`);
    }
  }
  return new URLSearchParams([...wanted].map((each) => ["default", each]));
}

// A canvas without a workflow opens the frontend's default graph, whose models this pool may not have: put in its place
// the one the pool can run. The frontend exports the graph as an object and clones it, so its content is replaced.
async function replaceDefaultGraph() {
  const graph = window.comfyAPI?.defaultGraph?.defaultGraph;
  if (!graph) return;
  try {
    const response = await fetch(`${STARTER}?${needs(graph)}`, { signal: AbortSignal.timeout(STARTER_LIMIT_MS) });
    const starter = response.ok ? await response.json() : null;
    if (!starter) return;
    for (const key of Object.keys(graph)) delete graph[key];
    Object.assign(graph, starter);
  } catch {
    // The default graph stays.
  }
}

// The graphs a canvas begins with are wider than a laptop, so that the picture would appear out of sight: show all of one,
// once per tab. Any other graph keeps the view it was saved with.
function fitFirstGraph() {
  const first = window.comfyAPI?.defaultGraph?.defaultGraph?.nodes; // it has no id of its own
  const name = (nodes) => (nodes || []).map((node) => `${node.id} ${node.type}`).sort().join();
  if (!first || name(app.rootGraph?._nodes) !== name(first) || sessionStorage.getItem(FITTED)) return;
  sessionStorage.setItem(FITTED, "1");
  setTimeout(() => app.extensionManager.command.execute("Comfy.Canvas.FitView"), FIT_AFTER_MS);
}

// A socket that is refused may mean that access has ended: the frontend itself would say "Reconnecting" for ever.
async function askWhetherSignedOut() {
  if (toldSignedOut) return;
  const response = await fetch(`${BASE}/me`, { headers: { Accept: "application/json" } }).catch(() => null);
  if (response?.status !== 401 || toldSignedOut) return;
  toldSignedOut = true;
  app.extensionManager.toast.add({ severity: "warn", summary: TEXT.name, detail: TEXT.signedOut });
}

let toldSignedOut = false;
let jobs = [];
let user = null;
let panel = null;
let asked = null; // the socket that has asked for news of the queue
let timer = null;
let hurried = false; // a look is due within SOON_MS
let asking = false;
let again = false; // something happened while we asked
let problem = "";

async function call(method, path) {
  const response = await fetch(BASE + path, { method, headers: { Accept: "application/json" } });
  if (!response.ok) {
    const body = await response.json().catch(() => null);
    throw new Error(body?.error?.message || TEXT.failed);
  }
  setClock(Date.parse(response.headers.get("Date") ?? ""));
  return response.json();
}

// Each new socket asks once to be told of the queue; programs that use ComfyUI's API never are.
function askForNews() {
  if (api.socket === asked || api.socket?.readyState !== WebSocket.OPEN) return;
  asked = api.socket;
  asked.send(JSON.stringify({ type: "cluster_queue" }));
}

// A forecast that changed, pushed by the server: of the jobs we show, or of others, at which we look again.
function foreseen({ detail }) {
  if (!Array.isArray(detail?.jobs)) return;
  setClock(detail.now_ms);
  const told = new Map(detail.jobs.map((job) => [job.id, job]));
  const fits = (job) => (told.get(job.id)?.reason != null) === (job.state === "queued");
  const known = jobs.filter((job) => told.has(job.id) && fits(job));
  jobs = jobs.map((job) => (known.includes(job) ? { ...job, ...told.get(job.id) } : job));
  if (known.length < told.size) soon();
  show();
}

// One look at the queue at a time; while something is active another one follows.
async function refresh() {
  clearTimeout(timer);
  timer = null;
  hurried = false;
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    jobs = (await call("GET", "/jobs?limit=30")).jobs.filter((job) => ACTIVE.has(job.state));
    problem = "";
  } catch (error) {
    problem = error.message;
  }
  asking = false;
  show();
  if (again) soon();
  else if (!hurried && jobs.length && !document.hidden) timer = setTimeout(refresh, EVERY_MS);
  again = false;
}

// Look again shortly: many reasons at once make one look, and a look that was due later comes now.
function soon() {
  if (hurried) return;
  hurried = true;
  clearTimeout(timer);
  timer = setTimeout(refresh, SOON_MS);
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function row(job) {
  const line = element("li", "cluster-job");
  const words = element("div", "cluster-words");
  words.append(element("div", "cluster-title", job.title || job.prompt_id), element("div", "cluster-state", describe(job)));
  const cancel = element("button", "cluster-button", TEXT.cancel);
  cancel.disabled = job.cancel_requested;
  cancel.onclick = () => act(() => call("POST", `/jobs/${job.id}/cancel`));
  line.append(words, cancel);
  return line;
}

function show() {
  jobs = inLine(jobs);
  showBadge();
  markNativeQueue(jobs);
  if (!panel) return;
  const list = element("ul", "cluster-jobs");
  list.append(...jobs.map(row));
  const status = problem || (jobs.length ? "" : TEXT.idle);
  panel.replaceChildren(element("h3", "", user?.name || TEXT.name), element("p", "cluster-note", status), list, sharePart, sessionPart, links());
}

function links() {
  const part = element("nav", "cluster-links");
  const pages = [[TEXT.home, "/cluster/"], [TEXT.gallery, "/cluster/gallery"], [TEXT.account, "/cluster/account"]];
  if (user?.is_admin) pages.push([TEXT.admin, "/cluster/admin/"]);
  for (const [text, href] of pages) {
    const link = element("a", "", text);
    link.href = href;
    link.target = "_blank";
    part.append(link);
  }
  return part;
}

// The action bar offers no way to change a label, so the text of our own button is replaced.
function showBadge() {
  const label = document.querySelector(".cluster-place span:last-child");
  if (!label) return;
  const text = badge(jobs) || TEXT.name;
  if (label.textContent !== text) label.textContent = text;
}

async function act(deed) {
  try {
    await deed();
  } catch (error) {
    app.extensionManager.toast.add({ severity: "error", summary: TEXT.name, detail: error.message, life: 8000 });
  }
  await refresh();
}

function style() {
  const sheet = element("style", "", `
    .cluster-panel { padding: 1rem; display: flex; flex-direction: column; gap: 0.75rem; font-size: 0.875rem; }
    .cluster-panel h3 { margin: 0; font-size: 1rem; }
    .cluster-jobs { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column; gap: 0.5rem; }
    .cluster-job { display: flex; gap: 0.5rem; align-items: center; padding: 0.5rem 0.625rem; border-radius: 8px;
      background: var(--comfy-input-bg, #222); }
    .cluster-words { flex: 1; min-width: 0; }
    .cluster-title { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .cluster-state, .cluster-note { color: var(--descrip-text, #999); margin: 0; }
    .cluster-button { border: 1px solid var(--border-color, #444); background: none; color: inherit; cursor: pointer;
      border-radius: 6px; padding: 0.375rem 0.625rem; font: inherit; }
    .cluster-button:disabled { opacity: 0.5; cursor: default; }
    .cluster-session { display: flex; flex-direction: column; gap: 0.375rem; align-items: flex-start;
      border-top: 1px solid var(--border-color, #444); padding-top: 0.75rem; overflow-wrap: anywhere; }
    .cluster-news { align-self: stretch; display: flex; flex-direction: column; gap: 0.5rem; align-items: flex-start;
      padding: 0.625rem; border-radius: 8px; background: rgb(31 143 255 / 18%); }
    .cluster-news.bad { background: rgb(255 111 107 / 18%); }
    .cluster-news p, .cluster-packs { margin: 0; }
    .cluster-news a { color: #6cb6ff; }
    .cluster-packs { padding-left: 1.1rem; }
    .cluster-links { display: flex; flex-wrap: wrap; gap: 0.75rem; }
    .cluster-links a { color: #6cb6ff; }${STYLE}`);
  document.head.append(sheet);
}

await replaceDefaultGraph();
api.addEventListener("status", askForNews);
api.addEventListener("status", soon);
api.addEventListener("execution_start", soon);
api.addEventListener("cluster_queue", foreseen);
api.addEventListener("reconnecting", askWhetherSignedOut);
document.addEventListener("visibilitychange", () => !document.hidden && soon());

app.registerExtension({
  name: "comfyui.cluster",
  actionBarButtons: [
    {
      icon: "pi pi-server",
      label: TEXT.name,
      tooltip: TEXT.tooltip,
      class: "cluster-place",
      onClick: () => app.extensionManager.command.execute("Workspace.ToggleSidebarTab.cluster"),
    },
  ],
  afterConfigureGraph: fitFirstGraph,
  aboutPageBadges: [{ label: "ComfyUI Cluster Proxy", url: "/cluster/", icon: "pi pi-server" }],
  setup() {
    style();
    app.extensionManager.registerSidebarTab({
      id: "cluster",
      icon: "pi pi-server",
      title: TEXT.name,
      tooltip: TEXT.tooltip,
      type: "custom",
      render(container) {
        panel = element("div", "cluster-panel");
        container.replaceChildren(panel);
        show();
        refresh();
        look();
        lookAtShare();
      },
      destroy() {
        panel = null;
      },
    });
    call("GET", "/me").then((me) => { user = me; show(); }).catch(() => {});
    refresh();
    look();
  },
});
