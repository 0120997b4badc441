// The sentences of the page.

export const plural = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

/** A text that is quoted as in JSON, TOML and the log. */
export function unquoted(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text.slice(1, -1);
  }
}

/** A length of time in words, rounded up. */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return plural(Math.round(hours / 24), "day");
}

/** How long something took. */
export function took(milliseconds) {
  if (milliseconds < 1) return `${Math.round(milliseconds * 1000)} µs`;
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

export function bytes(size) {
  if (size < 1000) return `${size} B`;
  if (size < 1_000_000) return `${(size / 1000).toFixed(1)} kB`;
  return `${(size / 1_000_000).toFixed(1)} MB`;
}

/** Shortens tokens. `secrets` are other texts to shorten. */
export function shortened(text, secrets = []) {
  const short = (secret) => `${secret.slice(0, 6)}…${secret.slice(-6)}`;
  for (const secret of secrets) if (secret?.length > 24) text = text.replaceAll(secret, short(secret));
  return text.replace(/eyJ[\w-]{10,}\.[\w-]+\.[\w-]*/g, short).replace(/\but_[\w-]{30,}/g, short);
}

const list = (names) => (names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : names.join(""));

const PERIODS = { "1s": "second", "1m": "minute", "60s": "minute", "1h": "hour", "60m": "hour", "1d": "day", "24h": "day" };

const per = (dimensions = []) => (dimensions.length ? ` per ${dimensions.join(" and ")}` : " in total");

function amount(limit) {
  if (typeof limit !== "object") return String(limit);
  const values = [...new Set([...Object.values(limit.values ?? {}), limit.default])].filter((value) => value !== undefined);
  // Sizes such as "1MB" are texts, in the order of the file.
  if (!values.every(Number.isFinite)) return values.join(" or ");
  return values.length > 1 ? `${Math.min(...values)} to ${Math.max(...values)}` : `${values[0]}`;
}

const RULES = {
  signed_in: ({ accept = [] }) => `signed in by ${list(accept)}`,
  workspace_member: ({ roles }) => `${roles ? list(roles) : "member"} of the workspace`,
  rate_limit: ({ limit, period, burst = limit, per: by }) =>
    `${limit} per ${PERIODS[period] ?? period}${per(by)}${burst === limit ? "" : `, ${burst} at once`}`,
  quota: ({ limit, window, per: by }) => `${amount(limit)} per ${window}${per(by)}`,
  upload_intent: ({ purposes, mime_types: types, max_size: size }) =>
    [purposes && `for ${list(purposes)}`, types && list(types.map((type) => type.replace("image/", ""))), size && `up to ${size}`]
      .filter(Boolean)
      .join(", "),
  storage: ({ max_images: images, max_bytes: size, per: by }) =>
    `up to ${[images !== undefined && `${amount(images)} images`, size !== undefined && `${amount(size)}`].filter(Boolean).join(" and ")}${per(by)}`,
  expression: () => "your CEL rule",
  remote: ({ url }) => (typeof url === "string" && URL.canParse(url) ? `asks ${new URL(url).host}` : "asks a service"),
};

/** What a policy checks, in a few words. */
export function rule({ settings }) {
  if (!settings) return "";
  try {
    const text = RULES[settings.kind]?.(settings) ?? settings.kind;
    return settings.mode === "observe" ? `${text} (observed)` : text;
  } catch {
    return settings.kind;
  }
}

/** What a code means, for the person who asked. */
const CODES = {
  not_signed_in: ({ user }) => `${user} must sign in first.`,
  invalid_credentials: () => "The credential is not valid.",
  credentials_expired: () => "The token has expired. The user must sign in again.",
  cross_site: () => "The request comes from a page of another site.",
  workspace_required: ({ user }) => `Which workspace? ${user} must choose one.`,
  workspace_forbidden: ({ user, workspace }) => `${user} may not upload to ${workspace ?? "this workspace"}.`,
  purpose_forbidden: ({ purpose }) => (purpose ? `Uploads for ${purpose} are not allowed here.` : "The request must name its purpose."),
  file_required: () => "The request must describe the file.",
  file_type_forbidden: ({ file }) => `Files of type ${file?.type || "unknown"} are not allowed.`,
  file_too_large: () => "The file is too large.",
  rule_forbidden: ({ user }) => `A rule does not allow ${user} to upload.`,
  rate_limited: () => "Too many requests.",
  quota_exhausted: () => "The quota is used up.",
  storage_full: () => "There is no room for this image. Delete one, or wait until open uploads are done.",
  imgwire_failed: () => "Imgwire did not do its part. The user can try again later.",
  overloaded: () => "The gate has too many requests at once. Try again.",
  internal: () => "The gate could not decide. That is a fault, not a denial.",
  bad_request: () => "The gate cannot read this request, so no policy was asked.",
  body_too_large: () => "The request is too large, so no policy was asked.",
  unsupported_media_type: () => "The request is not JSON, so no policy was asked.",
  not_found: () => "The gate has no such route.",
  method_not_allowed: () => "The route does not accept this method.",
};

/** Without a code, the server refused the request before it read it as one. */
export const sentence = (code, facts) =>
  code ? (CODES[code]?.(facts) ?? `The gate refused the request: ${code}.`) : "The gate cannot read this request, so no policy was asked.";

/** Imgwire's moods. */
export const MOODS = [
  ["up", "working"],
  ["slow", "slow"],
  ["down", "down (503)"],
  ["silent", "silent"],
  ["reset", "resetting"],
  ["key_refused", "key refused"],
  ["unpaid", "unpaid"],
  ["full", "full"],
  ["quarantine", "quarantining"],
];

export const MOOD_NOTES = {
  up: "It answers at once.",
  slow: "It answers after 3 s.",
  down: "It answers 503.",
  silent: "It never answers. The gate gives up after 10 s.",
  reset: "It resets connections.",
  key_refused: "It does not accept the Server API Key.",
  unpaid: "The subscription is not active.",
  full: "The storage of its plan is used up.",
  quarantine: "It quarantines what is uploaded.",
};
