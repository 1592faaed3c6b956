// Keeps a page current: fetches it again every few seconds and changes only what differs, so focus, open menus,
// half-typed forms and loaded pictures stay. Pauses while the tab is hidden.

const HIDDEN_MS = 30_000;
const SLOWEST_MS = 15_000;
let seen = null;
let failures = 0;
let timer = 0;
let running = null;

const main = () => document.getElementById("main");

export function refresh() {
  clearTimeout(timer);
  running ??= load().finally(() => {
    running = null;
    schedule();
  });
  return running;
}

async function load() {
  const page = location.pathname + location.search;
  try {
    const answer = await fetch(page, { cache: "no-cache", headers: { Accept: "text/html" }, signal: AbortSignal.timeout(10_000) });
    if (answer.redirected || answer.status === 401 || answer.status === 403) return location.reload();
    if (!answer.ok) throw new Error(String(answer.status));
    failures = 0;
    document.getElementById("offline").hidden = true;
    const mark = answer.headers.get("ETag");
    if (mark && mark === seen) return undefined;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
    if (fresh) morph(main(), fresh);
    seen = mark;
    localTimes();
  } catch {
    failures += 1;
    if (failures > 1) document.getElementById("offline").hidden = false;
  }
  return undefined;
}

function schedule() {
  const every = Number(main().dataset.live ?? 0) * 1000;
  if (every) timer = setTimeout(refresh, document.hidden ? HIDDEN_MS : Math.min(every * 2 ** failures, SLOWEST_MS));
}

function morph(old, fresh) {
  if (old.getAttribute("aria-busy") === "true") return; // at work: its label tells so
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !kept(old, name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !kept(old, name)) old.setAttribute(name, value);
  }
  if (old.nodeName === "DIALOG") return;
  let next = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const match = counterpart(next, child);
    if (match === null) {
      old.insertBefore(child, next);
      continue;
    }
    if (match !== next) old.insertBefore(match, next);
    else next = next.nextSibling;
    if (match.nodeType === Node.ELEMENT_NODE) morph(match, child);
    else if (match.data !== child.data) match.data = child.data;
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    gone.remove();
  }
}

// What the reader did to the page is theirs: open menus, what they typed, buttons at work.
function kept(element, name) {
  return name === "open" || name === "aria-busy" || (element.nodeName === "INPUT" && name === "value");
}

const key = (node) => node.dataset?.key ?? node.id ?? "";

function counterpart(next, child) {
  const same = (node) => node.nodeName === child.nodeName && key(node) === key(child);
  if (child.nodeType !== Node.ELEMENT_NODE) return next && same(next) ? next : null;
  for (let node = next; node; node = node.nextSibling) {
    if (node.nodeType === Node.ELEMENT_NODE && same(node)) return node;
    if (!key(child) && node.nodeType === Node.ELEMENT_NODE) return null;
  }
  return null;
}

function localTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.title = new Date(time.dateTime).toLocaleString();
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && main().dataset.live) refresh();
});
document.addEventListener("cluster:changed", () => refresh());
localTimes();
schedule();
