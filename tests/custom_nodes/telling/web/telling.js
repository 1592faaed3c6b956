// Keeps what the pack's node says, for whoever looks.

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";

window.told = [];
for (const kind of ["telling.you", "telling.all"]) {
  api.addEventListener(kind, (event) => window.told.push([kind, event.detail.text]));
}

app.registerExtension({ name: "tests.telling" });
