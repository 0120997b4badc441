// What comes after the gate's answer: the file goes to Imgwire.
import { showPicture } from "./answer.js";
import { byId, segments, setText } from "./dom.js";
import { refreshImages } from "./images.js";
import { state } from "./server.js";

/** A call of Imgwire's API, as the SDK does it with a token. */
async function callImgwire(path, options = {}) {
  const headers = { Authorization: `Bearer ${state.imgwire.clientKey}`, "Content-Type": "application/json" };
  const response = await fetch(`${state.imgwire.url}/api/v1/images/${path}`, { ...options, headers });
  const body = await response.json();
  if (response.ok) return body;
  const { detail } = body;
  throw new Error(typeof detail === "string" ? detail : `${response.status}: ${detail?.map(({ msg }) => msg).join(", ")}`);
}

/** PUTs a file, and reports the part that was sent. */
function put(url, file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", url);
    if (file.type) request.setRequestHeader("Content-Type", file.type);
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total ? loaded / total : 1));
    request.addEventListener("load", () => (request.status < 300 ? resolve() : reject(new Error(`the storage answered ${request.status}`))));
    request.addEventListener("error", () => reject(new Error("the storage does not respond")));
    request.send(file);
  });
}

/** The two steps of the upload with a token. Returns the image's id. */
async function upload(file, token) {
  const started = await callImgwire(`standard_upload?upload_token=${encodeURIComponent(token)}`, {
    method: "POST",
    body: JSON.stringify({ file_name: file.name, mime_type: file.type || undefined, content_length: file.size }),
  });
  await put(started.upload_url, file, () => {});
  return started.image.id;
}

/** Uploads with a token, and follows the image until Imgwire has processed it. */
async function withToken(file, token, isCurrent) {
  showPicture(file, "", "Uploading …");
  try {
    const id = await upload(file, token);
    for (;;) {
      const image = await callImgwire(id);
      if (!isCurrent()) return;
      if (image.status === "READY") {
        byId("image").src = image.cdn_url;
        showPicture(file, "ready", "Uploaded with the token; Imgwire says READY.");
        return;
      }
      if (image.status === "QUARANTINE") {
        showPicture(file, "bad", "Uploaded with the token; Imgwire says QUARANTINE and does not deliver it.");
        return;
      }
      showPicture(file, "", `Uploaded with the token; Imgwire says ${image.status} …`);
      await new Promise((resolve) => setTimeout(resolve, 150));
    }
  } catch (error) {
    if (isCurrent()) showPicture(file, "bad", `Imgwire refused the upload: ${error.message}`);
  }
}

/** What the browser sends after the gate created the upload. */
const SENT = [
  { value: "file", label: "the file" },
  { value: "other", label: "another file" },
  { value: "nothing", label: "nothing" },
];
const SENT_NOTES = {
  file: "As it was declared.",
  other: "A GIF of 35 bytes, whatever was declared. The gate finds the mismatch.",
  nothing: "The gate deletes the upload when it is as old as abandon_after.",
};
let sends = "file";

const PIXEL = "GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";
const otherFile = () => new File([Uint8Array.from(PIXEL, (letter) => letter.charCodeAt(0))], "other.gif", { type: "image/gif" });

/** Sends the file of an upload that the gate created. The list of images shows what becomes of it. */
async function throughGate(file, { upload_url: url }, isCurrent) {
  if (sends === "nothing") {
    showPicture(file, "", "Not sent. The image waits for its file.");
    await refreshImages();
    return;
  }
  const sent = sends === "other" ? otherFile() : file;
  const show = (part) => isCurrent() && showPicture(file, "", "Sending …", part);
  show(0);
  try {
    await put(url, sent, show);
    const what = sends === "other" ? "Another file was sent to Imgwire." : "Sent to Imgwire.";
    if (isCurrent()) showPicture(file, "sent", `${what} The list below shows what becomes of it.`);
  } catch (error) {
    if (isCurrent()) showPicture(file, "bad", `The file was not sent: ${error.message}.`);
  }
  await refreshImages();
}

/** What a flow does with the answer of the gate. */
export const follow = { token: withToken, upload: throughGate };

export function showSends(flow) {
  byId("sends-choice").hidden = flow !== "upload";
  segments(byId("sends"), "sends", SENT, sends, (value) => {
    sends = value;
    setText(byId("sends-note"), SENT_NOTES[sends]);
  });
  setText(byId("sends-note"), SENT_NOTES[sends]);
}
