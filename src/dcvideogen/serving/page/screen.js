// The place of the video that was asked for last, beside its base's where both were asked for.
import { announce, byId, h, text } from "./dom.js";
import { jobs } from "./jobs.js";
import { baseOf, model, partner, tokensOf } from "./models.js";
import { Pane } from "./pane.js";
import { count, duration, ended, stages, took } from "./words.js";

export class Screen {
  #shown = null; // id
  #panes = [];
  #said = new Map(); // id -> what was last told to screen readers

  constructor(report) {
    this.report = report;
    jobs.addEventListener("change", () => this.#update());
    jobs.addEventListener("list", () => this.#update());
  }

  show(job) {
    this.#shown = job.id;
    this.#update();
  }

  #update() {
    const made = jobs.all.filter((job) => job.kind === "generate");
    let job = jobs.get(this.#shown);
    // After a reload: what runs, else what waits first, else the newest that was made.
    job ??= made.findLast((each) => each.status === "in_progress") ?? made.findLast((each) => !ended(each));
    job ??= made.find((each) => each.status === "completed");
    byId("screen").hidden = !job;
    byId("nothing-yet").hidden = Boolean(job) || !jobs.loaded;
    if (!job) return;
    this.#shown = job.id;
    text(byId("screen-prompt"), job.prompt);
    showTogether(together(job, made), byId("panes"), this.#panes, byId("screen-verdict"), this.report);
    for (const each of together(job, made)) this.#say(each);
  }

  #say(job) {
    const key = job.status === "in_progress" ? (job.stage?.name ?? "") : job.status;
    if (this.#said.get(job.id) === key) return;
    const first = !this.#said.has(job.id);
    this.#said.set(job.id, key);
    if (first && ended(job)) return;
    const labels = new Map(stages(job.kind));
    const words = { queued: "waiting in the queue", completed: "ready", cancelled: "cancelled", failed: "failed" };
    announce(`${job.model}: ${words[key] ?? labels.get(key) ?? "started"}.`);
  }
}

/** The job and, where both were asked for, its base's first. */
export function together(job, all) {
  const other = partner(job, all);
  if (!other) return [job];
  return baseOf(job.model)?.id === other.model ? [other, job] : [job, other];
}

/** Brings panes and the line below them up to date with one job or two. */
export function showTogether(shown, place, panes, verdict, report) {
  while (panes.length < shown.length) panes.push(new Pane(report));
  const wanted = panes.slice(0, shown.length);
  if (place.children.length !== wanted.length) place.replaceChildren(...wanted.map((pane) => pane.element));
  for (const [index, job] of shown.entries()) panes[index].update(job);
  if (shown.length < 2) verdict.replaceChildren();
  else compare(shown, verdict);
}

async function compare([base, adapted], verdict) {
  const name = `${base.id} ${adapted.id} ${base.status} ${adapted.status}`;
  if (verdict.dataset.of === name && verdict.firstChild) return;
  verdict.dataset.of = name;
  const [tokens, fewer] = await Promise.all([tokensOf(base), tokensOf(adapted)]);
  if (verdict.dataset.of !== name) return;
  const times = [took(base), took(adapted)];
  const row = (label, values, words) =>
    h("tr", {}, h("th", { scope: "row" }, label), ...values.map((value) => h("td", {}, value === null ? "–" : words(value))), h("td", {}, ratio(...values)));
  verdict.replaceChildren(
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, "Base and adapted model"),
      h("thead", {}, h("tr", {}, h("td"), ...[base, adapted].map((job) => h("th", { scope: "col" }, job.model, h("small", {}, model(job.model)?.base ? " adapted" : " base"))), h("td"))),
      h("tbody", {}, row("Time", times, duration), row("Tokens", [tokens, fewer], count)),
    ),
  );
}

function ratio(before, after) {
  if (!before || !after) return "";
  const factor = before / after;
  return factor >= 1 ? `${factor.toFixed(1)}× less` : `${(1 / factor).toFixed(1)}× more`;
}
