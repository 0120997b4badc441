"use client";

import { useRouter } from "next/navigation";
import { useCallback, useEffect, useState } from "react";
import { ImgwireClient } from "../lib/imgwire-client.js";

const client = new ImgwireClient({ baseUrl: "/api/imgwire/uploads" });

const isOpen = ({ status }) => status === "PENDING" || status === "PROCESSING";

/** What the page tells the user about a refusal. */
const MESSAGES = {
  storage_full: "Your album is full. Delete a picture first.",
  file_type_forbidden: "Only PNG and JPEG pictures can be uploaded.",
  file_too_large: "The picture is larger than 5 MB.",
};

/** The user's images. While one is open, the list is read again, each time after a longer wait. */
export default function Album() {
  const [images, setImages] = useState([]);
  const [wait, setWait] = useState(500);
  const [trouble, setTrouble] = useState("");
  const router = useRouter();

  const refresh = useCallback(async () => {
    setImages(await client.list());
    // The list of events comes from the server.
    router.refresh();
  }, [router]);

  useEffect(() => {
    refresh().catch((error) => setTrouble(error.message));
  }, [refresh]);

  useEffect(() => {
    if (!images.some(isOpen)) return undefined;
    const timer = setTimeout(() => {
      setWait(Math.min(wait * 2, 10_000));
      refresh().catch((error) => setTrouble(error.message));
    }, wait);
    return () => clearTimeout(timer);
  }, [images, wait, refresh]);

  async function run(action) {
    setTrouble("");
    try {
      await action();
    } catch (error) {
      setTrouble(MESSAGES[error.code] ?? error.message);
    }
    setWait(500);
    await refresh().catch((error) => setTrouble(error.message));
  }

  return (
    <section>
      <h2>Album</h2>
      <input
        type="file"
        accept="image/png,image/jpeg"
        aria-label="An image for the album"
        onChange={(event) => {
          const [file] = event.target.files;
          if (file) run(() => client.upload(file));
        }}
      />
      <ul aria-label="Images">
        {images.map((image) => (
          <li key={image.id}>
            {image.original_filename}: {image.status}{" "}
            <button onClick={() => run(() => client.delete(image.id))}>Delete</button>
          </li>
        ))}
      </ul>
      <p role="alert">{trouble}</p>
    </section>
  );
}
