// Starts the session and goes on when it answers; shows the server's own words when it does not.

const SLOW_MS = 8000;
const GIVE_UP_MS = 180_000;
const page = document.getElementById("starting");
const step = document.getElementById("starting-step");

async function start() {
  document.getElementById("wait").hidden = false;
  document.getElementById("broken").hidden = true;
  step.textContent = page.dataset.step;
  const slow = setTimeout(() => (step.textContent = page.dataset.slow), SLOW_MS);
  try {
    const answer = await fetch("/cluster/api/v1/session/start", {
      method: "POST",
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(GIVE_UP_MS),
    });
    if (answer.status === 401) return void location.reload();
    const result = await answer.json().catch(() => ({}));
    if (!answer.ok) return void fail(result.error?.message ?? page.dataset.lost);
    step.textContent = page.dataset.ready;
    location.replace(page.dataset.next);
  } catch {
    fail(page.dataset.lost);
  } finally {
    clearTimeout(slow);
  }
}

function fail(message) {
  document.getElementById("starting-error").textContent = message;
  document.getElementById("wait").hidden = true;
  document.getElementById("broken").hidden = false;
  document.getElementById("retry").focus();
}

document.getElementById("retry").addEventListener("click", start);
start();
