// One video over the whole page, with everything it was made with.
import { download } from "./content.js";
import { byId, h, text, twice } from "./dom.js";
import { jobs } from "./jobs.js";
import { showTogether, together } from "./screen.js";
import { ended, size, title } from "./words.js";

/** actions: {reuse, report}. */
export class Viewer {
  #dialog = byId("viewer");
  #shown = null;
  #panes = [];
  #actions;

  constructor(actions) {
    this.#actions = actions;
    byId("viewer-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
    this.#dialog.addEventListener("close", () => {
      this.#shown = null;
      byId("viewer-panes").replaceChildren(); // a video that nobody sees does not play on
      this.#panes = [];
    });
    jobs.addEventListener("change", () => this.#update());
    jobs.addEventListener("list", () => this.#update());
  }

  open(job) {
    this.#shown = job.id;
    this.#update();
    this.#dialog.showModal();
  }

  #update() {
    if (this.#shown === null) return;
    const job = jobs.get(this.#shown);
    if (!job) {
      this.#dialog.close();
      return;
    }
    text(byId("viewer-prompt"), job.prompt);
    showTogether(together(job, jobs.all), byId("viewer-panes"), this.#panes, byId("viewer-verdict"), this.#actions.report);
    const state = `${job.id} ${job.status}`;
    if (byId("viewer-facts").dataset.of === state) return;
    byId("viewer-facts").dataset.of = state;
    byId("viewer-facts").replaceChildren(...facts(job));
    byId("viewer-actions").replaceChildren(...this.#buttons(job));
  }

  #buttons(job) {
    const { reuse, report } = this.#actions;
    const act = (label, run) => h("button", { type: "button", class: "quiet", onclick: run }, label);
    const buttons = [
      act("Reuse settings", () => {
        this.#dialog.close();
        reuse(job);
      }),
    ];
    if (job.status === "completed") buttons.push(act("Download", () => download(job).catch(report)));
    if (ended(job)) buttons.push(twice("Delete", "Really?", title(job), () => jobs.remove(job.id).catch(report)));
    return buttons;
  }
}

function facts(job) {
  const day = (seconds) => new Date(seconds * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const rows = [
    ["Model", job.model],
    ["Negative prompt", job.negative_prompt],
    ["Size", size(job)],
    ["Frames", `${job.num_frames} at ${job.fps} fps`],
    ["Steps", job.steps],
    ["Guidance", job.guidance],
    ["Seed", job.seed],
    ["Begins with", job.image && "a picture"],
    ["Ends with", job.last_image && "a picture"],
    ["Asked for", day(job.created_at)],
    ["Kept until", job.expires_at && day(job.expires_at)],
  ];
  return rows
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))));
}
