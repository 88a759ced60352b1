// What the video would take, told before the button is pressed.
import { json, Refused } from "./api.js";
import { byId, h, text } from "./dom.js";
import { bytes, count, duration } from "./words.js";

const PAUSE_MS = 350;

/** Keeps the box at the plan of the form's request. */
export function showPlan(form) {
  let timer = null;
  let asking = null;

  const ask = async () => {
    asking?.abort();
    const mine = (asking = new AbortController());
    try {
      const request = await form.request();
      // A plan needs no words, but the server takes no request without any.
      const body = { ...request, prompt: request.prompt.trim() || "…" };
      const plan = await json("v1/plan", { method: "POST", json: body, signal: mine.signal });
      if (!mine.signal.aborted) tell(plan);
    } catch (error) {
      if (!mine.signal.aborted && error instanceof Refused) complain(error.message);
    }
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE_MS);
  };
  form.addEventListener("change", soon);
  soon();
  return soon;
}

function tell(plan) {
  fact("plan-time", plan.seconds === null ? "not known yet" : `about ${duration(plan.seconds)}`);
  fact("plan-memory", bytes(plan.memory_bytes));
  fact("plan-tokens", plan.tokens === null ? "unknown" : count(plan.tokens));
  fact("plan-queue", queue(plan));
  const warnings = plan.fits ? plan.warnings : ["There is not enough memory for this", ...plan.warnings];
  warn([...new Set(warnings)], !plan.fits);
}

function queue(plan) {
  if (plan.queue_position === 0 && !plan.estimated_wait_seconds) return "starts at once";
  const wait = plan.estimated_wait_seconds === null ? "" : `, ${duration(plan.estimated_wait_seconds)}`;
  return `${plan.queue_position} ahead${wait}`;
}

function complain(message) {
  for (const name of ["plan-time", "plan-memory", "plan-tokens", "plan-queue"]) fact(name, "–");
  warn([message], true);
}

const fact = (id, words) => text(byId(id), words);

function warn(lines, bad) {
  const list = byId("plan-warnings");
  if (list.textContent !== lines.join("")) list.replaceChildren(...lines.map((line) => h("li", {}, line)));
  list.classList.toggle("bad", bad);
}
