// Buttons and forms that call the JSON API: data-call="METHOD /path", data-ask="question first", data-yes="the answer
// that does it, where the button's own label does not say", data-reveal="field of the answer to show once",
// data-done="note afterwards", data-busy="label meanwhile". Every text comes from the page.

const toasts = document.getElementById("toasts");

function toast(text, bad = false) {
  const note = document.createElement("p");
  note.className = bad ? "toast bad" : "toast";
  note.textContent = text;
  note.addEventListener("click", () => note.remove()); // it may lie on what is wanted next
  toasts.append(note);
  while (toasts.children.length > 4) toasts.firstChild.remove();
  setTimeout(() => note.remove(), bad ? 9000 : 4000);
}

function ask(element) {
  const dialog = document.getElementById("ask");
  document.getElementById("ask-text").textContent = element.dataset.ask;
  document.getElementById("ask-yes").textContent = element.dataset.yes || element.textContent.trim();
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

function reveal(element, secret) {
  document.getElementById("secret-title").textContent = element.dataset.revealTitle;
  document.getElementById("secret-hint").textContent = element.dataset.revealHint;
  const dialog = document.getElementById("secret");
  document.getElementById("secret-value").textContent = secret;
  dialog.addEventListener("close", () => (document.getElementById("secret-value").textContent = ""), { once: true });
  dialog.showModal();
}

function fields(form) {
  const body = {};
  for (const input of form.elements) {
    if (!input.name) continue;
    if (input.type === "checkbox") body[input.name] = input.checked;
    else if ("list" in input.dataset) body[input.name] = input.value.split(/[\s,]+/).filter(Boolean);
    else if (input.type === "datetime-local") body[input.name] = new Date(input.value).toISOString();
    else if (input.value || !("optional" in input.dataset)) body[input.name] = input.value;
  }
  return JSON.stringify(body);
}

async function call(element, body) {
  if (element.dataset.ask && !(await ask(element))) return;
  for (const complaint of toasts.querySelectorAll(".bad")) complaint.remove();
  const [method, path] = element.dataset.call.split(" ");
  element.setAttribute("aria-busy", "true");
  const label = element.dataset.busy && element.lastChild;
  const idle = label?.textContent;
  if (label) label.textContent = element.dataset.busy;
  try {
    const answer = await fetch(path, { method, body, headers: { Accept: "application/json", "Content-Type": "application/json" } });
    const result = await answer.json().catch(() => ({}));
    if (answer.status === 401) return void location.reload();
    if (!answer.ok) return void toast([result.error?.message, result.error?.details].filter(Boolean).join(" ") || toasts.dataset.failed, true);
    element.closest("details")?.removeAttribute("open");
    if (element.nodeName === "FORM") element.reset();
    const secret = element.dataset.reveal && result[element.dataset.reveal];
    if (secret) reveal(element, secret);
    else if (element.dataset.done) toast(element.dataset.done);
    document.dispatchEvent(new Event("cluster:changed"));
  } catch {
    toast(toasts.dataset.failed, true);
  } finally {
    if (label) label.textContent = idle;
    element.removeAttribute("aria-busy");
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.call) {
    call(button, button.dataset.body);
  } else if (button?.dataset.copy) {
    await copy(document.getElementById(button.dataset.copy));
    toast(button.dataset.copied);
  }
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.removeAttribute("open");
  }
});

// Without HTTPS there is no clipboard for scripts; the old command still works there.
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
  } catch {
    getSelection().selectAllChildren(element);
    document.execCommand("copy");
  }
}

document.addEventListener("submit", (event) => {
  if (!event.target.dataset.call) return;
  event.preventDefault();
  call(event.target, fields(event.target));
});

document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
  if (!menu) return;
  menu.removeAttribute("open");
  menu.querySelector("summary").focus();
});
