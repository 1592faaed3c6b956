// Another person signed in with this browser: ComfyUI keeps drafts and tab names in it, which are the last one's.

const LONGEST_MS = 3000;

async function clear() {
  window.name = "";
  sessionStorage.clear();
  localStorage.clear();
  for (const key of (await window.caches?.keys()) ?? []) await caches.delete(key);
  for (const { name } of (await indexedDB.databases?.()) ?? []) indexedDB.deleteDatabase(name);
}

const late = new Promise((resolve) => setTimeout(resolve, LONGEST_MS));
await Promise.race([clear(), late]).catch(() => undefined);
location.replace(document.getElementById("switch").dataset.next);
