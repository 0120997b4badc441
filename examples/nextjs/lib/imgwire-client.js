// The calls of Imgwire's SDK that the page needs. In your app, use `new ImgwireClient({ baseUrl, apiKey, fetch })` of `@imgwire/js`.

/** The gate or Imgwire refused a call. */
export class CallRefused extends Error {
  constructor(status, answer) {
    super(answer.message ?? answer.code ?? `status ${status}`);
    this.status = status;
    this.code = answer.code;
  }
}

/** A client of an upload route of the gate. The browser sends the session cookie. */
export class ImgwireClient {
  constructor({ baseUrl }) {
    this.baseUrl = baseUrl;
  }

  async call(path, options = {}) {
    const response = await fetch(`${this.baseUrl}/api/v1/images/${path}`, {
      ...options,
      headers: { "Content-Type": "application/json" },
      credentials: "include",
    });
    if (response.status === 204) return undefined;
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new CallRefused(response.status, answer);
    return answer;
  }

  /** The gate creates the upload; the file goes to Imgwire. */
  async upload(file) {
    const { image, upload_url } = await this.call("standard_upload", {
      method: "POST",
      body: JSON.stringify({ file_name: file.name, mime_type: file.type, content_length: file.size }),
    });
    const sent = await fetch(upload_url, { method: "PUT", body: file, headers: { "Content-Type": file.type } });
    if (!sent.ok) throw new Error(`the upload failed with ${sent.status}`);
    return image;
  }

  list() {
    return this.call("");
  }

  delete(id) {
    return this.call(id, { method: "DELETE" });
  }
}
