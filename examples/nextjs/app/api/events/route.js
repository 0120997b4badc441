import { Webhook } from "standardwebhooks";
import { keep } from "../../../lib/events.js";

/** Receives the gate's events. An answer of 2xx says that the event is kept; anything else, and the gate sends it again. */
export async function POST(request) {
  // The signature is of the bytes, so read them before you parse them.
  const body = await request.text();
  let event;
  try {
    event = new Webhook(process.env.APP_EVENTS_SECRET).verify(body, Object.fromEntries(request.headers));
  } catch {
    return new Response(null, { status: 401 });
  }
  keep(request.headers.get("webhook-id"), event);
  return new Response(null, { status: 204 });
}
