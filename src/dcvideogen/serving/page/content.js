// Videos and previews: fetched with the key in a header and shown as blobs, so that no key stands in an address.
import { blob } from "./api.js";
import { reducedMotion } from "./dom.js";

const KEPT = 12;
const urls = new Map(); // "id variant" -> Promise of an object URL; the order is that of use

/** A URL of a finished job's video for this page alone. variant: "video" or "side_by_side". */
export function videoUrl(job, variant = "video") {
  const name = `${job.id} ${variant}`;
  const known = urls.get(name) ?? load(name, `v1/videos/${job.id}/content?variant=${variant}`);
  urls.delete(name);
  urls.set(name, known);
  return known;
}

/** Frees the least used ones that no element plays. */
function trim() {
  const playing = new Set([...document.querySelectorAll("video, a[download]")].map((node) => node.src || node.href));
  for (const [name, promise] of [...urls].slice(0, Math.max(0, urls.size - KEPT))) {
    promise.then(
      (url) => {
        if (playing.has(url)) return;
        URL.revokeObjectURL(url);
        urls.delete(name);
      },
      () => {},
    );
  }
}

function load(name, path) {
  const loading = blob(path).then((content) => {
    setTimeout(trim);
    return URL.createObjectURL(content);
  });
  loading.catch(() => urls.delete(name)); // so that the next press tries again
  return loading;
}

/** Saves the video under a name that tells what it is. */
export async function download(job) {
  const words = (job.prompt || "reconstruction").toLowerCase().replaceAll(/[^\p{L}\p{N}]+/gu, "-");
  const link = document.createElement("a");
  link.href = await videoUrl(job);
  link.download = `${words.replaceAll(/^-|-$/g, "").slice(0, 60) || "video"}-${job.id.slice(6, 12)}.mp4`;
  document.body.append(link);
  link.click();
  link.remove();
}

/** Keeps an <img> at the newest preview of a job; the old one stays until the new one is there. */
export class Preview {
  #number = 0;
  #busy = false;
  #job = null;

  constructor(image) {
    this.image = image;
    image.hidden = true;
  }

  show(job) {
    if (job.id !== this.#job?.id) {
      this.#number = 0;
      this.image.hidden = true;
    }
    this.#job = job;
    if (job.preview > this.#number && !this.#busy) this.#load(job);
  }

  async #load(job) {
    this.#busy = true;
    try {
      const content = await blob(`v1/videos/${job.id}/content?variant=preview`);
      const url = URL.createObjectURL(reducedMotion() ? await still(content) : content);
      const old = this.image.src;
      this.image.src = url;
      await this.image.decode();
      if (old) URL.revokeObjectURL(old);
      if (job.id === this.#job.id) this.image.hidden = false;
    } catch {
      // a preview that is gone or cannot be shown is no loss
    }
    this.#number = Math.max(this.#number, job.preview);
    this.#busy = false;
    if (this.#job.id !== job.id || this.#job.preview > this.#number) this.show(this.#job);
  }
}

/** The first picture of one that moves. */
async function still(content) {
  const picture = await createImageBitmap(content);
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d").drawImage(picture, 0, 0);
  return canvas.convertToBlob();
}
