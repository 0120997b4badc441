/** The gate refused the token. */
export class UploadRefused extends Error {
  constructor(response, answer) {
    super(answer.message ?? answer.code ?? response.statusText);
    this.name = "UploadRefused";
    this.status = response.status;
    this.code = answer.code;
    /** A text for the user, if the policy has one. */
    this.userMessage = answer.message;
    this.requestId = answer.requestId;
    /** Seconds to wait before the next attempt. */
    this.retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  }
}

/**
 * Requests an upload token from the gate. All options are optional.
 * `token` is the user's JWT; without it, the browser sends the session cookie. `workspace` and `purpose` say what the upload
 * is for. `file` is the File to upload; the request declares its name, type and size.
 */
export async function getUploadToken({
  url = "/api/imgwire/upload-token",
  token,
  workspace,
  purpose,
  file,
  signal,
} = {}) {
  const headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const body = { workspace, purpose };
  if (file) body.file = { name: file.name, mimeType: file.type, size: file.size };
  const response = await fetch(url, {
    method: "POST",
    headers,
    body: JSON.stringify(body),
    credentials: "include",
    signal,
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new UploadRefused(response, answer);
  return answer.uploadToken;
}
