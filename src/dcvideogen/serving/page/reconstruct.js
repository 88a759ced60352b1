// The second tab: a clip through an autoencoder and back, compared.
import { json, Refused } from "./api.js";
import { download, videoUrl } from "./content.js";
import { byId, h, text, twice } from "./dom.js";
import { DropField } from "./drop.js";
import { jobs } from "./jobs.js";
import { Pane } from "./pane.js";
import { Split } from "./split.js";
import { ended, standing } from "./words.js";

// In the order in which they are shown; a server may send more than people want to read.
const METRICS = { psnr_db: ["PSNR", " dB", 1], ssim: ["SSIM", "", 3], compression_ratio: ["Compression", "×", 0] };

export class Reconstruction {
  #clip = new DropField("clip", "clip");
  #split = new Split();
  #pane;
  #shown = null;
  #report;

  constructor(models, report) {
    this.#report = report;
    this.#pane = new Pane(report);
    byId("reconstruction-pane").append(this.#pane.element);
    const able = models.filter((each) => each.task === "autoencoder");
    byId("autoencoder").replaceChildren(...able.map((each) => h("option", { value: each.id }, each.id)));
    byId("reconstruct-link").hidden = able.length === 0;
    this.#clip.addEventListener("change", () => (byId("reconstruct-go").disabled = !this.#clip.file));
    byId("reconstruct-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin();
    });
    byId("reconstruction-save").addEventListener("click", () => download(jobs.get(this.#shown)).catch(report));
    jobs.addEventListener("list", () => this.#update());
    jobs.addEventListener("change", () => this.#update());
  }

  async #begin() {
    const button = byId("reconstruct-go");
    button.disabled = true;
    try {
      this.#show(await this.#ask());
    } catch (error) {
      this.#report(error);
    }
    button.disabled = !this.#clip.file;
  }

  async #ask() {
    const body = async () => ({ model: byId("autoencoder").value, clip: await this.#clip.id() });
    const ask = async () => json("v1/reconstructions", { method: "POST", json: await body() });
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof Refused && error.code === "upload_not_found" && (await this.#clip.again()))) throw error;
      return ask();
    }
  }

  #show(job) {
    this.#shown = job.id;
    jobs.add(job);
  }

  #update() {
    const made = jobs.all.filter((job) => job.kind === "reconstruct");
    const job = jobs.get(this.#shown) ?? made.find((each) => !ended(each)) ?? made[0];
    byId("reconstruction").hidden = !job;
    byId("no-reconstruction").hidden = Boolean(job) || !jobs.loaded;
    this.#list(made);
    if (!job) return;
    this.#shown = job.id;
    const done = job.status === "completed";
    byId("reconstruction-pane").hidden = done;
    byId("reconstruction-result").hidden = !done;
    this.#pane.update(job);
    if (done) this.#result(job);
  }

  #result(job) {
    const place = byId("metrics");
    if (place.dataset.of === job.id && job.metrics) return;
    place.dataset.of = job.id;
    place.replaceChildren(
      ...Object.entries(METRICS)
        .map(([name, rest]) => [metric(job, name), rest])
        .filter(([value]) => value !== null)
        .map(([value, [label, unit, digits]]) =>
          h("div", {}, h("dt", {}, label), h("dd", {}, `${value.toFixed(digits)}${unit}`)),
        ),
    );
    videoUrl(job, "side_by_side").then((url) => this.#shown === job.id && this.#split.show(url), this.#report);
  }

  #list(made) {
    const state = JSON.stringify(made.map((job) => [job.id, job.status, this.#shown === job.id]));
    const list = byId("reconstructions");
    if (list.dataset.of === state) return;
    list.dataset.of = state;
    byId("reconstructions-part").hidden = made.length < 2;
    list.replaceChildren(...made.map((job) => this.#row(job)));
  }

  #row(job) {
    const when = new Date(job.created_at * 1000).toLocaleString();
    const psnr = metric(job, "psnr_db");
    const words = `${job.model}, ${when}, ${psnr === null ? standing(job).toLowerCase() : `${psnr.toFixed(1)} dB`}`;
    const open = h("button", { type: "button", class: "quiet wide", "aria-pressed": String(job.id === this.#shown) }, words);
    open.addEventListener("click", () => {
      this.#shown = job.id;
      this.#update();
    });
    const remove = ended(job) && twice("Delete", "Really?", words, () => jobs.remove(job.id).catch(this.#report));
    return h("li", { class: "row" }, open, remove);
  }
}

/** A number, or the mean of a measure that has a value for every frame; null where there is none. */
function metric(job, name) {
  const value = job.metrics?.[name];
  const mean = typeof value === "object" ? value?.mean : value;
  return typeof mean === "number" ? mean : null;
}

/** Which of the two tabs the address names. */
export function showTabs() {
  const tab = location.hash === "#reconstruct" ? "reconstruct" : "generate";
  for (const name of ["generate", "reconstruct"]) {
    byId(name).hidden = name !== tab;
    if (name === tab) byId(`${name}-link`).setAttribute("aria-current", "page");
    else byId(`${name}-link`).removeAttribute("aria-current");
  }
  text(document.querySelector("title"), tab === "generate" ? "dcvideogen" : "Reconstruct: dcvideogen");
}
