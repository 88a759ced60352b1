// One job in large: its preview while it runs, its stages, its video when it is done.
import { download, Preview, videoUrl } from "./content.js";
import { h, reducedMotion, set, text } from "./dom.js";
import { jobs } from "./jobs.js";
import { ended, size, stages, standing } from "./words.js";

/** `element` shows the job of the last `update`. report: called with an error that people should read. */
export class Pane {
  #job = null;
  #image = h("img", { alt: "Preview", class: "fill" });
  #preview = new Preview(this.#image);
  #hint = h("p", { class: "hint" });
  #well = h("div", { class: "well" }, this.#hint, this.#image);
  #video = null;
  #name = h("strong");
  #standing = h("span", { class: "standing" });
  #bar = h("progress", { max: 100, value: 0 });
  #percent = h("span", { class: "percent" });
  #stages = h("ol", { class: "stages", "aria-label": "Stages" });
  #running;
  #done;
  #facts = h("p", { class: "facts" });
  #save = h("button", { type: "button", class: "quiet" }, "Download");
  #cancel = h("button", { type: "button", class: "quiet" }, "Cancel");

  constructor(report) {
    this.report = report;
    this.#cancel.addEventListener("click", () => {
      set(this.#cancel, { disabled: true });
      text(this.#cancel, "Cancelling…");
      jobs.cancel(this.#job.id).catch((error) => {
        this.#free();
        report(error);
      });
    });
    this.#running = h("div", { class: "running" }, h("div", { class: "bar" }, this.#bar, this.#percent, this.#cancel), this.#stages);
    this.#done = h("div", { class: "done", hidden: true }, this.#facts, h("div", { class: "row" }, this.#save));
    this.#save.addEventListener("click", () => download(this.#job).catch(report));
    this.element = h(
      "figure",
      { class: "pane" },
      this.#well,
      h(
        "figcaption",
        {},
        h("p", { class: "line" }, this.#name, this.#standing),
        h("div", { class: "under" }, this.#running, this.#done),
      ),
    );
  }

  update(job) {
    if (job.id !== this.#job?.id) this.#begin(job);
    const before = this.#job;
    this.#job = job;
    text(this.#name, job.model);
    text(this.#standing, standing(job));
    set(this.element, { "data-status": job.status });
    this.#progress(job);
    if (!ended(job)) {
      text(this.#hint, job.status === "queued" ? "Waiting for its turn" : "The first preview is on its way");
      this.#preview.show(job);
    } else if (before?.status !== job.status || before.id !== job.id) {
      this.#end(job);
    }
  }

  #begin(job) {
    this.#video?.remove();
    this.#video = null;
    this.#image.hidden = true;
    this.#free();
    set(this.#cancel, { "aria-label": `Cancel ${job.model}` });
    set(this.#bar, { "aria-label": `Progress of ${job.model}` });
    const [width, height] = (job.size ?? "16x9").split("x");
    this.#well.style.setProperty("--shape", `${width} / ${height}`);
    set(this.#save, { "aria-label": `Download the video of ${job.model}` });
    const made = `${size(job)}, ${job.num_frames} frames, ${job.steps} steps, guidance ${job.guidance}, seed ${job.seed}`;
    text(this.#facts, job.kind === "generate" ? made : "");
    this.#stages.replaceChildren(
      ...stages(job.kind).map(([name, label]) => h("li", { "data-stage": name }, h("span", {}, label), h("small"))),
    );
  }

  #free() {
    set(this.#cancel, { disabled: false });
    text(this.#cancel, "Cancel");
  }

  #progress(job) {
    this.#bar.value = job.progress;
    text(this.#percent, `${job.progress} %`);
    const names = stages(job.kind).map(([name]) => name);
    const current = job.status === "completed" ? names.length : names.indexOf(job.stage?.name);
    for (const [index, item] of [...this.#stages.children].entries()) {
      const state = index < current ? "done" : index === current ? "now" : "later";
      set(item, { "data-state": state, "aria-current": state === "now" ? "step" : null });
      text(item.lastChild, state === "now" ? `${job.stage.done} of ${job.stage.total}` : "");
    }
    this.#running.hidden = ended(job);
    this.#done.hidden = !ended(job);
    this.#save.hidden = job.status !== "completed";
  }

  async #end(job) {
    if (job.status !== "completed") {
      this.#image.hidden = true;
      text(this.#hint, job.error ? `${job.error.message}; ${job.error.hint}` : "Cancelled");
      return;
    }
    if (job.kind === "reconstruct") return;
    text(this.#hint, "Fetching the video");
    try {
      const url = await videoUrl(job);
      if (this.#job.id !== job.id) return;
      this.#video = h("video", {
        class: "fill", src: url, controls: true, loop: true, playsinline: true, preload: "auto", "aria-label": job.prompt,
      });
      this.#video.muted = true;
      this.#video.autoplay = !reducedMotion();
      this.#video.addEventListener("loadeddata", () => (this.#image.hidden = true));
      this.#well.append(this.#video);
      text(this.#hint, "");
    } catch (error) {
      text(this.#hint, error.message);
    }
  }
}
