import { reset, startAsking } from "./ask.js";
import { startConfig } from "./config.js";
import { byId, setText } from "./dom.js";
import { startEvents } from "./events.js";
import { startImages } from "./images.js";
import { startLimits } from "./limits.js";
import { startPicture } from "./picture.js";
import { keepFresh, onState, refresh, state } from "./server.js";
import { startWho } from "./who.js";
import { startWire } from "./wire.js";

startConfig();
startWho(reset);
startWire();
await startPicture(() => reset(false));
startAsking();
startLimits();
startImages();
startEvents();
onState(({ management, config, users }) => {
  byId("health").href = `${management}/readyz`;
  byId("metrics").href = `${management}/metrics`;
  const rest = users.length > 0 ? "nothing leaves this machine" : `everything else is as ${config.file} says`;
  setText(byId("emulated"), `Imgwire is emulated: ${rest}.`);
});
await refresh();
if (state) {
  document.body.dataset.ready = "true";
  keepFresh();
}
