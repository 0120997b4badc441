import { getUploadToken } from "./get-upload-token.js";
import { upload } from "./upload.js";

const imgwire = {
  url: import.meta.env.IMGWIRE_URL ?? "https://api.imgwire.dev",
  clientKey: import.meta.env.IMGWIRE_CLIENT_KEY,
};
const area = document.querySelector("#upload");
const output = area.querySelector("output");
let token;

document.querySelector("#sign-in").addEventListener("click", async (event) => {
  const response = await fetch("/sign-in", { method: "POST" });
  ({ token } = await response.json());
  event.target.hidden = true;
  area.hidden = false;
});

area.querySelector("input").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  output.textContent = "uploading";
  try {
    const image = await upload(imgwire, file, () => getUploadToken({ token, file }));
    output.textContent = image.status;
  } catch (error) {
    output.textContent = error.message;
  }
});
