// What one's jobs may expect, in words: for the cluster's panel, for the badge beside Run, and in the frontend's own queue.
// Times are the server's; a browser's clock may be wrong.

const TEXT = {
  waiting: (place) => (place ? `Waiting, place ${place} in line` : "Waiting"),
  starts: (time) => (time ? `starts in about ${time}` : "starts in a moment"),
  running: (progress) => (progress == null ? "Running" : `Running, ${Math.round(progress * 100)} %`),
  left: (time) => (time ? `about ${time} left` : "almost done"),
  collecting: "Fetching pictures",
  cancelled: "Cancelling",
  seconds: (n) => `${n} s`,
  minutes: (n) => `${n} min`,
  hours: (h, min) => (min ? `${h} h ${min} min` : `${h} h`),
  badge: (place, time) => (time ? `#${place} in line, ~${time}` : `#${place} in line`),
  badgeWaiting: "waiting",
  badgeRunning: (time) => (time ? `running, ~${time}` : "running"),
};
const SKEW_MS = 2000;
const MARK = "data-cluster-place";

let ahead_ms = 0; // how much this browser's clock is ahead of the server's

// The server's time, from a source that may be a second old.
export function setClock(server_ms) {
  const ahead = Date.now() - server_ms;
  if (Math.abs(ahead - ahead_ms) > SKEW_MS) ahead_ms = ahead;
}

// How long until then, coarse where it is long; empty for now, null when that is not known.
function until(moment_ms) {
  if (moment_ms == null) return null;
  const seconds = Math.round((moment_ms - (Date.now() - ahead_ms)) / 1000);
  if (seconds < 3) return "";
  if (seconds < 60) return TEXT.seconds(seconds < 10 ? seconds : Math.round(seconds / 5) * 5);
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? TEXT.minutes(minutes) : TEXT.hours(Math.floor(minutes / 60), minutes % 60);
}

const waits = (job) => job.state === "queued";

// A line for a job: where it is, when it starts or ends, why it waits.
export function describe(job) {
  if (job.cancel_requested) return TEXT.cancelled;
  if (job.state === "collecting") return TEXT.collecting;
  const time = until(waits(job) ? job.expected_start_ms : job.expected_end_ms);
  const words = waits(job) ? [TEXT.waiting(job.position)] : [TEXT.running(job.progress)];
  if (time != null) words.push(waits(job) ? TEXT.starts(time) : TEXT.left(time));
  const line = words.join(", ");
  if (!waits(job) || !job.reason) return line;
  return job.reason.startsWith("waiting ") ? line.replace(/^Waiting/, () => `W${job.reason.slice(1)}`) : `${line}: ${job.reason}`;
}

// What runs, then what waits as it is expected to start; what nobody can foresee stays behind, in its order.
export function inLine(jobs) {
  const rank = (job) => (waits(job) ? job.position ?? Number.MAX_VALUE : 0);
  return [...jobs].sort((one, other) => rank(one) - rank(other));
}

function short(job) {
  return waits(job) ? TEXT.badge(job.position, until(job.expected_start_ms)) : TEXT.badgeRunning(until(job.expected_end_ms));
}

// For the badge: what runs, or else the first that waits; empty when there is neither.
export function badge(jobs) {
  const job = jobs.find((each) => !waits(each)) || jobs.find((each) => each.position);
  return job ? short(job) : jobs.length ? TEXT.badgeWaiting : "";
}

// The frontend's own queue knows nothing of other users. Where it names jobs by their ids (1.58), each gets its place in
// line as an attribute, which a style shows: nothing of the frontend's is changed, and where it names none nothing happens.
export function markNativeQueue(jobs) {
  const places = new Map(jobs.filter((job) => waits(job) && job.position).map((job) => [job.prompt_id, job]));
  for (const item of document.querySelectorAll("[data-job-id]")) {
    const job = places.get(item.dataset.jobId);
    if (!job) {
      item.removeAttribute(MARK);
    } else if (item.getAttribute(MARK) !== short(job)) {
      item.setAttribute(MARK, short(job));
      item.title = describe(job);
    }
  }
}

export const STYLE = `
    [${MARK}] { position: relative; }
    [${MARK}]::after { content: attr(${MARK}); position: absolute; right: 0.75rem; top: 50%; transform: translateY(-50%);
      font-size: 0.75rem; color: var(--descrip-text, #999); pointer-events: none; }
    [${MARK}]:hover::after { content: none; }`; // the frontend's buttons appear there
