// The picture to upload: a file, or a small sample.
import { byId } from "./dom.js";
import { bytes } from "./text.js";

let sample;
let chosen;
let shown;

/** A small landscape. */
async function paint() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [224, 176];
  const context = canvas.getContext("2d");
  const sky = context.createLinearGradient(0, 0, 0, 176);
  sky.addColorStop(0, "#4f6df5");
  sky.addColorStop(0.6, "#f7a8c4");
  sky.addColorStop(1, "#ffd9a0");
  context.fillStyle = sky;
  context.fillRect(0, 0, 224, 176);
  context.fillStyle = "#fff4d6";
  context.beginPath();
  context.arc(156, 74, 24, 0, 7);
  context.fill();
  for (const [color, points] of [
    ["#5a6fae", [0, 120, 60, 70, 120, 128, 170, 92, 224, 136]],
    ["#2e4272", [0, 150, 50, 118, 110, 152, 160, 124, 224, 158]],
  ]) {
    context.fillStyle = color;
    context.beginPath();
    context.moveTo(0, 176);
    for (let at = 0; at < points.length; at += 2) context.lineTo(points[at], points[at + 1]);
    context.lineTo(224, 176);
    context.fill();
  }
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return new File([blob], "sample.png", { type: "image/png" });
}

/** The file to upload. */
export const picture = () => chosen ?? sample;

function show() {
  const file = picture();
  if (shown) URL.revokeObjectURL(shown);
  shown = URL.createObjectURL(file);
  byId("thumb").hidden = !file.type.startsWith("image/");
  byId("thumb").src = shown;
  byId("file-name").textContent = `${file.name}, ${bytes(file.size)}`;
  byId("sample").hidden = !chosen;
}

export async function startPicture(onChange) {
  const choose = (file) => {
    chosen = file;
    show();
    onChange();
  };
  sample = await paint();
  show();
  byId("thumb").addEventListener("error", () => {
    byId("thumb").hidden = true;
  });
  byId("file").addEventListener("change", () => {
    const [file] = byId("file").files;
    if (file) choose(file);
  });
  byId("sample").addEventListener("click", () => {
    byId("file").value = "";
    choose(undefined);
    byId("file").focus();
  });
  // A file that misses the zone must not replace the page.
  for (const event of ["dragover", "drop"]) document.addEventListener(event, (dragged) => dragged.preventDefault());
  const zone = byId("drop");
  for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    zone.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      zone.classList.toggle("over", over);
    });
  }
  zone.addEventListener("drop", (event) => {
    const [file] = event.dataTransfer.files;
    if (file) choose(file);
  });
}
