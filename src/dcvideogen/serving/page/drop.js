// A field for one file, by drop, by choosing or by pasting, which goes to the server at once.
import { json } from "./api.js";
import { byId, h, text } from "./dom.js";

/** Element `id` holds a file input, a [data-name] and a [data-clear] button. "change" when the upload is there or gone. */
export class DropField extends EventTarget {
  #root;
  #input;
  #purpose;
  #thumbnail = null;
  file = null;
  upload = null; // what the server made of it
  pending = null; // Promise while it is on its way

  constructor(id, purpose) {
    super();
    this.#root = byId(id);
    this.#purpose = purpose;
    this.#input = this.#root.querySelector("input");
    this.#input.addEventListener("change", () => this.#input.files[0] && this.take(this.#input.files[0]));
    this.#root.querySelector("[data-clear]").addEventListener("click", () => {
      this.clear();
      this.#input.focus();
    });
    this.#root.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.#root.classList.add("over");
    });
    for (const name of ["dragleave", "drop"]) {
      this.#root.addEventListener(name, () => this.#root.classList.remove("over"));
    }
    this.#root.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
    });
  }

  /** Whether there is a file or an upload. */
  get given() {
    return Boolean(this.file ?? this.upload);
  }

  /** Sends a file; a second one replaces the first. */
  take(file) {
    this.file = file;
    this.upload = null;
    this.#say(`Sending ${file.name}…`, true);
    this.#show(file);
    this.pending = this.#send(file);
    this.pending.catch(() => {});
    this.dispatchEvent(new Event("change"));
  }

  /** An upload of an earlier job, by its id. */
  use(id, words) {
    this.#reset();
    this.upload = { id };
    this.#say(words, true);
    this.dispatchEvent(new Event("change"));
  }

  clear() {
    this.#reset();
    this.#say("", false);
    this.dispatchEvent(new Event("change"));
  }

  /** The upload's id once it is there, null without a file. Throws what the server said. */
  async id() {
    if (this.pending) await this.pending;
    return this.upload?.id ?? null;
  }

  /** The server forgot the upload: it is sent again, if the file is still here. */
  async again() {
    if (!this.file) return false;
    this.take(this.file);
    await this.pending;
    return true;
  }

  async #send(file) {
    const form = new FormData();
    form.append("purpose", this.#purpose);
    form.append("file", file);
    try {
      const upload = await json("v1/uploads", { method: "POST", body: form });
      if (this.file !== file) return;
      this.upload = upload;
      const frames = upload.num_frames > 1 ? `, ${upload.num_frames} frames${upload.shortened ? " (its end is left out)" : ""}` : "";
      this.#say(`${file.name}: ${upload.width}×${upload.height}${frames}`, true);
    } catch (error) {
      if (this.file === file) {
        this.#reset();
        this.#say(`${file.name}: ${error.message}`, false, true);
      }
      throw error;
    } finally {
      if (this.file === file || this.file === null) {
        this.pending = null;
        this.dispatchEvent(new Event("change"));
      }
    }
  }

  #reset() {
    this.file = this.upload = this.pending = null;
    this.#input.value = "";
    this.#show(null);
  }

  #say(words, full, bad = false) {
    text(this.#root.querySelector("[data-name]"), words);
    this.#root.classList.toggle("full", full);
    this.#root.classList.toggle("bad", bad);
  }

  #show(file) {
    if (this.#thumbnail) URL.revokeObjectURL(this.#thumbnail.src);
    this.#thumbnail?.remove();
    this.#thumbnail = null;
    if (!file || !file.type.startsWith("image/")) return;
    this.#thumbnail = h("img", { src: URL.createObjectURL(file), alt: "The picture you chose" });
    this.#root.prepend(this.#thumbnail);
  }
}
