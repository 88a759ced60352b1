// A clip and its reconstruction in one picture with a movable border between them.
import { byId, reducedMotion, set, text } from "./dom.js";

/** Plays one video that holds the clip in its left half and the reconstruction in its right half: never out of step. */
export class Split {
  #video = document.createElement("video");
  #canvas = byId("split");
  #border = byId("border");
  #play = byId("split-play");

  constructor() {
    // Without "auto" Chromium decodes no frame of a video that does not play, and the canvas stays empty.
    Object.assign(this.#video, { muted: true, loop: true, playsInline: true, preload: "auto" });
    this.#border.addEventListener("input", () => this.#draw());
    this.#play.addEventListener("click", () => (this.#video.paused ? this.#video.play() : this.#video.pause()));
    for (const name of ["play", "pause"]) {
      this.#video.addEventListener(name, () => text(this.#play, this.#video.paused ? "Play" : "Pause"));
    }
    this.#video.addEventListener("play", () => this.#run());
    this.#video.addEventListener("loadeddata", () => {
      Object.assign(this.#canvas, { width: this.#video.videoWidth / 2, height: this.#video.videoHeight });
      this.#canvas.parentElement.style.setProperty("--ratio", this.#canvas.width / this.#canvas.height);
      this.#draw();
    });
    this.#video.addEventListener("seeked", () => this.#draw());
    const follow = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const { left, width } = this.#canvas.getBoundingClientRect();
      this.#border.value = (100 * (event.clientX - left)) / width;
      this.#draw();
    };
    for (const name of ["pointerdown", "pointermove"]) this.#canvas.addEventListener(name, follow);
  }

  show(url) {
    if (this.#video.src === url) return;
    this.#video.src = url;
    if (!reducedMotion()) this.#video.play().catch(() => {});
  }

  #run() {
    this.#draw();
    if (!this.#video.paused && this.#canvas.isConnected) requestAnimationFrame(() => this.#run());
  }

  #draw() {
    const { width, height } = this.#canvas;
    const at = Math.round((width * this.#border.value) / 100);
    const context = this.#canvas.getContext("2d");
    if (at > 0) context.drawImage(this.#video, 0, 0, at, height, 0, 0, at, height);
    if (at < width) context.drawImage(this.#video, width + at, 0, width - at, height, at, 0, width - at, height);
    this.#canvas.parentElement.style.setProperty("--at", `${this.#border.value}%`);
    set(this.#border, { "aria-valuetext": `${Math.round(this.#border.value)} % original` });
  }
}
