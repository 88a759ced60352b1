// One video of the gallery.
import { download, Preview, videoUrl } from "./content.js";
import { h, reducedMotion, set, text, twice } from "./dom.js";
import { jobs } from "./jobs.js";
import { ended, size, standing, title } from "./words.js";

/** actions: {open, reuse, report}, called with the job, or with an error. */
export class Card {
  #job;
  #actions;
  #image = h("img", { alt: "", class: "fill" });
  #preview = new Preview(this.#image);
  #video = null;
  #near = false;
  #hint = h("span", { class: "hint" });
  #bar = h("progress", { max: 100, value: 0 });
  #standing = h("p", { class: "standing" });
  #buttons = h("div", { class: "row" });

  constructor(job, actions) {
    this.#job = job;
    this.#actions = actions;
    this.thumb = h("button", { type: "button", class: "well thumb", "aria-label": `Open: ${title(job)}` }, this.#hint, this.#image, this.#bar);
    set(this.#bar, { "aria-label": `Progress: ${title(job)}` });
    this.thumb.addEventListener("click", () => actions.open(this.#job));
    for (const name of ["pointerenter", "focus"]) this.thumb.addEventListener(name, () => reducedMotion() || this.#play());
    for (const name of ["pointerleave", "blur"]) this.thumb.addEventListener(name, () => this.#pause());
    this.element = h(
      "li",
      { class: "card" },
      this.thumb,
      h("p", { class: "prompt", title: job.prompt }, job.prompt),
      h("p", { class: "facts" }, `${job.model} · ${size(job)} · ${job.num_frames} frames`),
      this.#standing,
      this.#buttons,
    );
    this.#offer();
    this.update(job);
  }

  update(job) {
    const changed = ended(job) !== ended(this.#job) || job.status !== this.#job.status;
    this.#job = job;
    text(this.#standing, job.error ? `${job.error.message}; ${job.error.hint}` : standing(job));
    set(this.element, { "data-status": job.status });
    text(this.#hint, { queued: "Waiting", failed: "Failed", cancelled: "Cancelled" }[job.status] ?? "");
    this.#image.classList.toggle("gone", job.status === "failed" || job.status === "cancelled");
    this.#bar.value = job.progress;
    this.#bar.hidden = ended(job);
    if (changed) this.#offer();
    if (this.#near) this.#picture();
  }

  /** It is in sight, or nearly: now its picture is worth fetching. */
  near() {
    this.#near = true;
    this.#picture();
  }

  #picture() {
    // Of a finished one the first frame: previews are early guesses, and they move by themselves.
    if (this.#job.status === "completed") this.#load().catch(() => {});
    else if (this.#job.preview > 0) this.#preview.show(this.#job);
  }

  async #load() {
    const url = await videoUrl(this.#job);
    if (this.#video?.src === url) return;
    this.#video?.remove();
    this.#video = h("video", { class: "fill", src: url, loop: true, playsinline: true, preload: "auto", "aria-hidden": true, tabindex: -1 });
    this.#video.muted = true;
    this.#video.addEventListener("loadeddata", () => (this.#image.hidden = true));
    this.thumb.append(this.#video);
  }

  async #play() {
    if (this.#job.status !== "completed") return;
    this.playing = true;
    try {
      await this.#load();
      if (this.playing) await this.#video.play();
    } catch {
      // left before it began, or gone: the full view tells
    }
  }

  #pause() {
    this.playing = false;
    this.#video?.pause();
  }

  #offer() {
    const job = this.#job;
    const name = title(job);
    const act = (label, run) =>
      h("button", { type: "button", class: "quiet", "aria-label": `${label}: ${name}`, onclick: run }, label);
    const report = (error) => this.#actions.report(error);
    const buttons = [act("Reuse", () => this.#actions.reuse(this.#job))];
    if (job.status === "completed") buttons.push(act("Download", () => download(this.#job).catch(report)));
    if (ended(job)) buttons.push(twice("Delete", "Really?", name, () => jobs.remove(job.id).catch(report)));
    else buttons.push(act("Cancel", () => jobs.cancel(job.id).catch(report)));
    this.#buttons.replaceChildren(...buttons);
  }
}
