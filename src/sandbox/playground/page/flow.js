// The two flows: an upload token, or an upload through the gate.
import { UploadRefused, getUploadToken } from "/playground/page/get-upload-token.js";

/** The headers of a call as the chosen user. The workspace is in a header if neither the path nor a body names it. */
export function headersOf({ route, token, headers, workspace }) {
  const isNamed = route.flow === "upload" && workspace && !route.path.includes("{workspace}");
  return { ...(token && { Authorization: `Bearer ${token}` }), ...headers, ...(isNamed && { "X-Workspace-Id": workspace }) };
}

/** The file as a request for a token declares it. */
export const describe = (file) => file && { name: file.name, mimeType: file.type, size: file.size };

const json = (asked) => ({ "Content-Type": "application/json", ...headersOf(asked) });

export const FLOWS = {
  token: {
    label: "With a token",
    note: "The page gets a token from the gate, and uploads with it to Imgwire.",
    button: "Request a token and upload",
    idle: "creates the token",
    done: "token created",
    said: "Imgwire created a token",
    request: (asked) => {
      const { path, workspace, purpose, file } = asked;
      return { url: path, headers: json(asked), body: JSON.stringify({ workspace, purpose, file: describe(file) }) };
    },
    call: ({ path, token, workspace, purpose, file }) => getUploadToken({ url: path, token, workspace, purpose, file }),
  },
  upload: {
    label: "Through the gate",
    note: "The gate creates the upload, knows whose image it is, and follows it.",
    button: "Upload through the gate",
    idle: "creates the image",
    done: "image created",
    said: "Imgwire created the image",
    request: (asked) => {
      const { path, purpose, file } = asked;
      const body = { file_name: file?.name, mime_type: file?.type || undefined, content_length: file?.size, purpose };
      return { url: `${path}/api/v1/images/standard_upload`, headers: json(asked), body: JSON.stringify(body) };
    },
    async call(asked) {
      const { url, headers, body } = this.request(asked);
      const response = await fetch(url, { method: "POST", headers, body });
      const answer = await response.json().catch(() => ({}));
      if (!response.ok) throw new UploadRefused(response, answer);
      return answer;
    },
  },
};

export { UploadRefused };
