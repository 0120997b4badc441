"use client";

import { useState } from "react";
import { getUploadToken } from "../lib/get-upload-token.js";
import { upload } from "../lib/upload.js";

export default function Upload({ imgwire }) {
  const [status, setStatus] = useState("");

  async function onChange(event) {
    const [file] = event.target.files;
    setStatus("uploading");
    try {
      const image = await upload(imgwire, file, () => getUploadToken({ file }));
      setStatus(image.status);
    } catch (error) {
      setStatus(error.message);
    }
  }

  return (
    <p>
      <input type="file" accept="image/*" aria-label="A picture" onChange={onChange} />
      <output>{status}</output>
    </p>
  );
}
