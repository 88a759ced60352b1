// Numbers and states as people say them.

/** "0.8 s", "42 s", "5 min", "3 h". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "unknown";
  if (seconds === 0) return "under 1 s"; // the server counts whole seconds
  if (seconds < 9.95) return `${Number.isInteger(seconds) ? seconds : seconds.toFixed(1)} s`;
  if (seconds < 119.5) return `${Math.round(seconds)} s`;
  if (seconds < 7170) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** "640 MiB", "1.4 GiB". */
export function bytes(count) {
  if (count === null || count === undefined) return "unknown";
  const gib = count / 2 ** 30;
  return gib >= 0.95 ? `${gib.toFixed(1)} GiB` : `${Math.max(1, Math.round(count / 2 ** 20))} MiB`;
}

/** "31,200". */
export const count = (number) => number.toLocaleString("en");

/** "160×96" of "160x96". */
export const size = (job) => (job.size ?? "").replace("x", "×");

/** What a job is called where its whole text is too long. */
export function title(job) {
  const words = job.kind === "reconstruct" ? `reconstruction by ${job.model}` : job.prompt;
  return words.length > 80 ? `${words.slice(0, 79)}…` : words;
}

const STAGES = {
  text: "Reading the prompt",
  denoising: "Denoising",
  encoding: "Encoding",
  decoding: "Decoding",
  writing: "Writing",
};

/** The stages of a job in their order: [name, label]. */
export function stages(kind) {
  const names = kind === "reconstruct" ? ["encoding", "decoding", "writing"] : ["text", "denoising", "decoding", "writing"];
  return names.map((name) => [name, STAGES[name]]);
}

/** One line on how a job stands. */
export function standing(job) {
  switch (job.status) {
    case "queued":
      return queued(job);
    case "in_progress":
      return job.stage ? `${STAGES[job.stage.name]} ${job.stage.done} of ${job.stage.total}` : "Starting";
    case "completed":
      return `Made in ${duration(took(job))}`;
    case "cancelled":
      return "Cancelled";
    default:
      return "Failed";
  }
}

function queued(job) {
  const ahead = job.queue_position;
  const place = ahead ? `Waiting: ${ahead} ${ahead === 1 ? "video" : "videos"} ahead` : "Waiting: next in the queue";
  return job.estimated_wait_seconds === null ? place : `${place}, about ${duration(job.estimated_wait_seconds)}`;
}

/** Seconds from start to end; null of one that did not run. */
export function took(job) {
  return job.completed_at === null || job.started_at === null ? null : job.completed_at - job.started_at;
}

export const ended = (job) => job.status !== "queued" && job.status !== "in_progress";
