/** The gate refused: what it said, for the app to act on. */
export class UploadRefused extends Error {
  constructor(response, answer) {
    super(answer.message ?? answer.code ?? response.statusText);
    this.name = "UploadRefused";
    this.status = response.status;
    this.code = answer.code;
    /** What the operator lets users be told, if anything. */
    this.userMessage = answer.message;
    this.requestId = answer.requestId;
    /** Seconds to wait before it makes sense to ask again. */
    this.retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  }
}

/**
 * Asks the gate for an upload token. Every option may be left out:
 * `token` is the user's JWT (without it, the session cookie is sent), `workspace` and `purpose` say what the upload is for,
 * `file` is the File that will be uploaded, of which name, type and size are declared.
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
