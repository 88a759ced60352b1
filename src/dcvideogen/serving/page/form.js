// The form of a video: its fields, the model's defaults in them, and what they say as a request.
import { announce, byId, h, text } from "./dom.js";
import { DropField } from "./drop.js";
import { baseOf, model } from "./models.js";

const KEPT = "dcvideogen.form";
const OTHER = "other";
const NUMBERS = ["width", "height", "num_frames", "fps", "steps", "guidance", "seed"];
const TEXTS = ["prompt", "negative_prompt", "model"];

/** "change" whenever the request that the form says is another one. */
export class VideoForm extends EventTarget {
  #models;

  constructor(models) {
    super();
    this.#models = models.filter((each) => each.task !== "autoencoder");
    this.element = byId("video-form");
    this.picture = new DropField("picture", "image");
    this.lastPicture = new DropField("last-picture", "image");
    byId("model").replaceChildren(...this.#models.map((each) => h("option", { value: each.id }, label(each))));
    byId("picture-field").hidden = !this.#models.some((each) => each.task === "i2v");
    this.#listen();
    this.#useDefaults();
    this.#restore();
    this.#toggle();
  }

  /** The chosen model. */
  get model() {
    return model(byId("model").value);
  }

  /** The request of the fields as they stand; waits for pictures that are on their way. */
  async request() {
    const value = { model: this.model.id, prompt: byId("prompt").value, negative_prompt: byId("negative_prompt").value };
    value.size = `${number("width")}x${number("height")}`;
    for (const name of ["num_frames", "fps", "steps", "guidance", "seed"]) {
      if (number(name) !== null) value[name] = number(name);
    }
    return { ...value, ...(await this.pictures()) };
  }

  /** The ids of the pictures, as a request has them; waits for those that are on their way. */
  async pictures() {
    const image = this.model.task === "i2v" ? await this.picture.id() : null;
    const last = image === null ? null : await this.lastPicture.id();
    return { ...(image !== null && { image }), ...(last !== null && { last_image: last }) };
  }

  /** The server forgot the pictures: they are sent again, where the files are still here. */
  async sendAgain() {
    const sent = await Promise.all([this.picture.again(), this.lastPicture.again()]);
    return sent.some(Boolean);
  }

  /** Fills in what a job was made with. */
  fill(job) {
    if (model(job.model)) byId("model").value = job.model;
    this.#fillSizes();
    byId("prompt").value = job.prompt;
    byId("negative_prompt").value = job.negative_prompt ?? "";
    const [width, height] = job.size.split("x");
    const { num_frames, fps, steps, guidance, seed } = job;
    for (const [name, value] of Object.entries({ width, height, num_frames, fps, steps, guidance, seed })) {
      byId(name).value = value ?? "";
    }
    if (job.image) this.picture.use(job.image, "The picture of that video");
    else this.picture.clear();
    if (job.last_image) this.lastPicture.use(job.last_image, "The last picture of that video");
    else this.lastPicture.clear();
    this.#changed();
    announce("The settings are in the form.");
  }

  #listen() {
    this.element.addEventListener("input", (event) => event.target.type !== "file" && this.#changed());
    byId("model").addEventListener("change", () => {
      this.#useDefaults();
      this.#changed();
    });
    byId("size").addEventListener("change", () => {
      const chosen = this.model.sizes[byId("size").value];
      if (chosen) for (const name of ["width", "height", "num_frames"]) byId(name).value = chosen[name];
      byId("own-size").hidden = Boolean(chosen);
      if (!chosen) byId("width").focus();
      this.#changed();
    });
    byId("dice").addEventListener("click", () => {
      byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
      this.#changed();
    });
    this.lastPicture.addEventListener("change", () => this.#changed());
    this.picture.addEventListener("change", () => {
      const given = this.picture.given;
      const able = this.#models.find((each) => each.task === "i2v");
      if (given && this.model.task !== "i2v" && able) {
        byId("model").value = able.id;
        this.#useDefaults();
        announce(`Model ${able.id}, which begins with a picture.`);
      }
      this.#changed();
    });
  }

  #useDefaults() {
    const { size, ...defaults } = this.model.defaults;
    [byId("width").value, byId("height").value] = size.split("x");
    for (const [name, value] of Object.entries(defaults)) byId(name).value = value;
    this.#fillSizes();
  }

  #fillSizes() {
    const options = this.model.sizes.map((each, index) =>
      h("option", { value: index }, `${each.width}×${each.height}, ${each.num_frames} frames`),
    );
    byId("size").replaceChildren(...options, h("option", { value: OTHER }, "Another size"));
  }

  /** The size among the model's own ones, or the two fields for another one. */
  #toggle() {
    const same = (each) => ["width", "height"].every((name) => each[name] === number(name));
    const exact = this.model.sizes.findIndex((each) => same(each) && each.num_frames === number("num_frames"));
    const index = exact >= 0 ? exact : this.model.sizes.findIndex(same);
    if (!byId("own-size").contains(document.activeElement)) {
      byId("size").value = index >= 0 ? index : OTHER;
      byId("own-size").hidden = index >= 0;
    }
    const pictures = this.model.task === "i2v";
    text(byId("picture-note"), pictures ? "The video begins with it." : "");
    byId("last-picture-field").hidden = !(pictures && this.picture.given);
    const base = baseOf(this.model.id);
    byId("compare").hidden = !base;
    text(byId("compare-note"), base ? `Makes it with ${this.model.id} and with ${base.id}, side by side.` : "");
  }

  #changed() {
    this.#toggle();
    this.#keep();
    this.dispatchEvent(new Event("change"));
  }

  /** A reload keeps what was typed. */
  #keep() {
    const values = Object.fromEntries([...TEXTS, ...NUMBERS].map((name) => [name, byId(name).value]));
    sessionStorage.setItem(KEPT, JSON.stringify(values));
  }

  #restore() {
    const values = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
    if (!model(values.model)?.defaults) return;
    byId("model").value = values.model;
    this.#fillSizes();
    for (const name of [...TEXTS, ...NUMBERS]) byId(name).value = values[name] ?? "";
  }
}

function label(each) {
  const from = each.task === "i2v" ? "from a picture and words" : "from words";
  return `${each.id} (${from})`;
}

function number(name) {
  const value = byId(name).value;
  return value === "" ? null : Number(value);
}
