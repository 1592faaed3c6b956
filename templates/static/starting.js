// Starts the session and goes on when it answers; shows the server's own words when it does not.

const SLOW_MS = 8000;
const GIVE_UP_MS = 180_000;
const WARMING_MS = 1000;
const page = document.getElementById("starting");
const step = document.getElementById("starting-step");

async function start(verb, said = page.dataset.step) {
  document.getElementById("wait").hidden = false;
  document.getElementById("broken").hidden = true;
  step.textContent = said;
  const slow = setTimeout(() => {
    if (said === page.dataset.step) step.textContent = page.dataset.slow;
  }, SLOW_MS);
  try {
    const answer = await fetch(`/cluster/api/v1/session/${verb}`, {
      method: "POST",
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(GIVE_UP_MS),
    });
    if (answer.status === 401) return void location.reload();
    const result = await answer.json().catch(() => ({}));
    if (result.error?.type === "warming") {
      // The server still imports what all sessions start from: nothing failed, it only takes longer than one request.
      clearTimeout(slow);
      step.textContent = result.error.message;
      return void setTimeout(() => start("start", result.error.message), WARMING_MS);
    }
    if (!answer.ok) return void fail(result.error?.message ?? page.dataset.lost, result.error?.details);
    step.textContent = page.dataset.ready;
    location.replace(page.dataset.next);
  } catch {
    fail(page.dataset.lost);
  } finally {
    clearTimeout(slow);
  }
}

function fail(message, log) {
  document.getElementById("starting-error").textContent = message;
  const box = document.getElementById("starting-log");
  const text = box.querySelector("pre");
  if (log !== undefined) text.textContent = log;
  box.hidden = !text.textContent.trim();
  document.getElementById("wait").hidden = true;
  document.getElementById("broken").hidden = false;
  text.scrollTop = text.scrollHeight;
  document.getElementById("retry").focus();
}

// A restart also starts what has crashed too often to be started without being asked for.
document.getElementById("retry").addEventListener("click", () => start("restart"));
if (page.dataset.broken) fail(page.dataset.broken);
else start("start");
