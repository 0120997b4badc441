// Who asks, for which workspace and purpose, in which flow, and by which route.
import { byId, el, segments, setText } from "./dom.js";
import { FLOWS } from "./flow.js";
import { onState, state } from "./server.js";

const SAVED = "playground";

/** What the form says. */
const chosen = { flow: undefined, user: undefined, workspace: "", purpose: "", route: undefined };

const saved = () => {
  try {
    return JSON.parse(sessionStorage.getItem(SAVED)) ?? {};
  } catch {
    return {};
  }
};

/** The flows for which the config has routes. */
const flows = () => Object.keys(FLOWS).filter((flow) => state.rules.routes.some((route) => route.flow === flow));

const currentFlow = () => (flows().includes(chosen.flow) ? chosen.flow : flows()[0]);

const routes = () => state.rules.routes.filter(({ flow }) => flow === currentFlow());

/** The route that the page asks, as the config has it. */
export const currentRoute = () => routes().find(({ path }) => path === chosen.route) ?? routes()[0];

const isDemo = () => state.users.length > 0;

const namesWorkspace = ({ path }) => path.includes("{workspace}");

/** The chosen workspace. A route whose path names it needs one. */
const workspace = () => chosen.workspace || (namesWorkspace(currentRoute()) ? (state.workspaces[0] ?? "") : "");

/** Without demo users: the user's own credential, if the route wants one, and none. */
function users() {
  if (isDemo()) return state.users;
  const place = currentRoute().credential;
  const own = {
    bearer: { name: "Your credential", about: "a bearer token of your app" },
    header: { name: "Your credential", about: `the header ${place?.name}` },
    cookie: { name: "Your browser", about: `its cookie ${place?.name}` },
  }[place?.in];
  const nobody = { id: "nobody", subject: null, name: place ? "Signed out" : "Anyone", about: "no credentials", workspace: "" };
  return own ? [{ id: "own", subject: null, workspace: "", ...own }, nobody] : [nobody];
}

export const currentUser = () => users().find(({ id }) => id === chosen.user) ?? users()[0];

/** What the page would send now. */
export function request() {
  const user = currentUser();
  const route = currentRoute();
  const value = user.id === "own" ? byId("credential-value").value.trim() : user.token;
  const isBearer = user.id !== "own" || route.credential.in === "bearer";
  const header = user.id === "own" && route.credential.in === "header" ? route.credential.name : undefined;
  const named = workspace();
  return {
    user,
    route,
    /** Where the route is for the workspace; `undefined` if its path names one and none is chosen. */
    path: namesWorkspace(route) ? named && route.path.replace("{workspace}", encodeURIComponent(named)) : route.path,
    /** A bearer token. */
    token: (isBearer && value) || undefined,
    /** Other headers of the credential. */
    headers: header && value ? { [header]: value } : {},
    /** Whether the gate can explain the decision beforehand: it explains bearer tokens only. */
    isExplained: isBearer,
    workspace: named || undefined,
    purpose: chosen.purpose || undefined,
    secrets: [value],
  };
}

function cards(onChoose) {
  const list = users();
  const container = byId("users");
  const signature = JSON.stringify(list.map(({ token, ...rest }) => rest));
  if (container.dataset.shown !== signature) {
    container.dataset.shown = signature;
    container.replaceChildren(
      ...list.map((user) => {
        const input = el("input", { type: "radio", name: "user", value: user.id, class: "unseen", change: () => onChoose(user) });
        const initial = user.id === "expired" ? "!" : (user.subject?.match(/\d+$/)?.[0] ?? "–");
        return el(
          "label",
          { class: "person" },
          input,
          el("span", { class: "dot", "aria-hidden": "true" }, user.id === "own" ? "✓" : initial),
          el("span", { class: "who" }, el("b", {}, user.name), el("small", {}, user.about)),
          user.plan && el("span", { class: "plan" }, user.plan),
        );
      }),
    );
  }
  const current = currentUser();
  for (const input of container.querySelectorAll("input")) input.checked = input.value === current.id;
}

/** The purposes that the policies of the route name. */
function purposes() {
  const { policies, purpose } = currentRoute();
  const named = policies.flatMap(({ settings }) => settings?.purposes ?? []);
  return [...new Set(purpose ? [] : named)];
}

export function startWho(onChange) {
  const changed = () => {
    sessionStorage.setItem(SAVED, JSON.stringify(chosen));
    show();
    onChange(false);
  };
  function show() {
    const list = flows();
    byId("flows").hidden = list.length < 2;
    segments(byId("flow"), "flow", list.map((value) => ({ value, label: FLOWS[value].label })), currentFlow(), (value) => {
      chosen.flow = value;
      changed();
    });
    cards((user) => {
      chosen.user = user.id;
      chosen.workspace = user.workspace ?? "";
      changed();
    });
    const place = currentRoute().credential;
    const isOwn = currentUser().id === "own";
    const hasField = isOwn && place.in !== "cookie";
    byId("credential").hidden = !hasField;
    if (hasField) setText(byId("credential-label"), place.in === "bearer" ? "Bearer token" : place.name);
    byId("credential-note").hidden = isDemo();
    setText(
      byId("credential-note"),
      isOwn && place.in === "cookie"
        ? `Sign in to your app on ${location.hostname} in this browser; then the browser sends the cookie ${place.name}. A page cannot set it.`
        : "There are no demo users, because only your app can sign its users in.",
    );
    const free = namesWorkspace(currentRoute()) ? [] : [{ value: "", label: "from the token" }];
    const choices = [...free, ...state.workspaces.map((id) => ({ value: id, label: id }))];
    byId("workspaces").hidden = !isDemo();
    byId("workspace-text").hidden = isDemo();
    byId("workspace-name").required = namesWorkspace(currentRoute());
    segments(byId("workspace"), "workspace", choices, workspace(), (value) => {
      chosen.workspace = value;
      changed();
    });
    const named = purposes();
    if (!named.includes(chosen.purpose)) chosen.purpose = "";
    byId("purposes").hidden = named.length === 0;
    segments(byId("purpose"), "purpose", ["", ...named].map((value) => ({ value, label: value || "not named" })), chosen.purpose, (value) => {
      chosen.purpose = value;
      changed();
    });
    const paths = routes().map(({ path }) => path);
    byId("route-choice").hidden = paths.length < 2;
    const path = currentRoute().path;
    if (byId("route").dataset.shown !== paths.join(" ")) {
      byId("route").dataset.shown = paths.join(" ");
      byId("route").replaceChildren(...paths.map((path) => el("option", { value: path }, path)));
    }
    byId("route").value = path;
    setText(byId("route-name"), path);
  }
  byId("route").addEventListener("change", () => {
    chosen.route = byId("route").value;
    changed();
  });
  byId("credential-value").addEventListener("input", () => onChange(true));
  byId("workspace-name").addEventListener("input", () => {
    chosen.workspace = byId("workspace-name").value.trim();
    onChange(true);
  });
  onState((_, before) => {
    if (!before) {
      const { flow, user, workspace, purpose, route } = saved();
      chosen.flow = flow;
      const known = users().find(({ id }) => id === user);
      chosen.user = (known ?? users()[0]).id;
      const isKnown = known && ["", ...state.workspaces].includes(workspace);
      chosen.workspace = isKnown ? workspace : (currentUser().workspace ?? "");
      chosen.purpose = purpose ?? "";
      chosen.route = route;
    }
    show();
  });
}
