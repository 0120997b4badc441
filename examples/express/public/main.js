import { getUploadToken } from "./get-upload-token.js";
import { upload } from "./upload.js";

const imgwire = await (await fetch("/imgwire.json")).json();
const area = document.querySelector("#upload");
const output = area.querySelector("output");

document.querySelector("#sign-in").addEventListener("click", async (event) => {
  await fetch("/sign-in", { method: "POST" });
  event.target.hidden = true;
  area.hidden = false;
});

area.querySelector("input").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  output.textContent = "uploading";
  try {
    // The browser sends the app's cookie by itself.
    const image = await upload(imgwire, file, () => getUploadToken({ file }));
    output.textContent = image.status;
  } catch (error) {
    output.textContent = error.message;
  }
});
