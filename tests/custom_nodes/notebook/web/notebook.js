// A button beside Run and a menu entry: both write a note through the pack's own route and show what it answered.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

async function write() {
  const text = `note of ${new Date().toISOString()}`;
  const response = await api.fetchApi("/notebook/notes", { method: "POST", body: JSON.stringify({ text }) });
  const answer = await response.json();
  const detail = `${answer.notes.length} notes, ${answer.calls} calls`;
  app.extensionManager.toast.add({ severity: "info", summary: "Notebook", detail, life: 30000 });
}

app.registerExtension({
  name: "tests.notebook",
  commands: [{ id: "notebook.write", label: "Write a note", function: write }],
  menuCommands: [{ path: ["Notebook"], commands: ["notebook.write"] }],
  actionBarButtons: [
    { icon: "pi pi-book", label: "Notebook", tooltip: "Write a note", class: "notebook-button", onClick: write },
  ],
});
