// Uploads a picture to Imgwire, as its SDK does: create the upload, send the bytes, wait until the image is there.
// In your app, use the SDK: `new ImgwireClient({ apiKey, getUploadToken }).images.upload(file)` of `@imgwire/js`.

async function call(imgwire, path, options = {}) {
  const response = await fetch(`${imgwire.url}/api/v1/images/${path}`, {
    ...options,
    headers: { Authorization: `Bearer ${imgwire.clientKey}`, "Content-Type": "application/json" },
  });
  if (!response.ok) throw new Error(`Imgwire answered ${response.status}`);
  return response.json();
}

/** `imgwire` has the `url` of Imgwire and your public `clientKey`; `getUploadToken` returns a token of the gate. */
export async function upload(imgwire, file, getUploadToken) {
  const token = await getUploadToken();
  const { image, upload_url } = await call(imgwire, `standard_upload?upload_token=${token}`, {
    method: "POST",
    body: JSON.stringify({ file_name: file.name, mime_type: file.type, content_length: file.size }),
  });
  const sent = await fetch(upload_url, { method: "PUT", body: file, headers: { "Content-Type": file.type } });
  if (!sent.ok) throw new Error(`the upload failed with ${sent.status}`);
  let current = image;
  while (current.status === "PENDING" || current.status === "PROCESSING") {
    await new Promise((resolve) => setTimeout(resolve, 200));
    current = await call(imgwire, image.id);
  }
  return current;
}
