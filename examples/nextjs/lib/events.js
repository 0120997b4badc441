// The last events. This stands for a table of your database, with the id as its key: the gate may send an event twice.

const KEPT = 100;

// One list for all routes of the server.
const events = (globalThis.uploadEvents ??= new Map());

/** Keeps an event. One that is known changes nothing. */
export function keep(id, event) {
  if (events.has(id)) return;
  events.set(id, { id, ...event });
  if (events.size > KEPT) events.delete(events.keys().next().value);
}

/** The events about the images of a user, in the order in which they happened. */
export function eventsOf(user) {
  const own = [...events.values()].filter(({ data }) => data.subject === user);
  // The sequence orders the events of one image.
  const byTime = (one, other) => Date.parse(one.timestamp) - Date.parse(other.timestamp);
  return own.sort((one, other) => byTime(one, other) || one.sequence - other.sequence);
}
