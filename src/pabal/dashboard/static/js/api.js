// Requests to the server; every failure becomes the same kind of error.

import { Store, useCallback, useEffect, useRef, useState } from "./lib.js";

export const session = new Store(null);

export class ApiError extends Error {
  constructor(status, code, message, fields = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.message_ko = fields.message_ko;
    this.fields = fields;
  }
}

export function address(path, params = {}) {
  const url = new URL(`api/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", String(error.message || error));
  }
  let body = null;
  try {
    body = await response.json();
  } catch {
    body = null;
  }
  if (response.ok) return body;
  const error = body?.error ?? {};
  if (response.status === 401) {
    const known = session.get();
    if (known?.user) session.set({ ...known, user: null });
  }
  throw new ApiError(response.status, error.code ?? "unknown", error.message ?? response.statusText, error);
}

export const get = (path, params, signal) => ask(address(path, params), { signal });

export const post = (path, body = {}) =>
  ask(address(path), {
    method: "POST",
    headers: { "content-type": "application/json", "x-csrf-token": session.get()?.csrf ?? "" },
    body: JSON.stringify(body),
  });

export async function loadSession() {
  session.set(await get("session"));
}

/**
 * Load the response of a path, and load it again when the path or a parameter changes.
 *
 * The previous response stays visible meanwhile, so nothing flickers; only the response to the latest
 * request is used. `every` reloads after this many milliseconds, while the page is visible.
 */
export function useLoaded(path, params = {}, { every = 0, fresh = false } = {}) {
  const key = path === null ? null : address(path, params).href;
  const [state, setState] = useState({ key: null, data: null, error: null, loading: true });
  const running = useRef(null);
  const load = useCallback(async () => {
    if (key === null) return;
    running.current?.abort();
    const control = new AbortController();
    running.current = control;
    setState((before) => ({ ...before, loading: true }));
    try {
      const data = await ask(key, { signal: control.signal });
      setState({ key, data, error: null, loading: false });
    } catch (error) {
      if (control.signal.aborted) return;
      setState((before) => ({
        key,
        data: before.key === key ? before.data : null,
        error,
        loading: false,
      }));
    }
  }, [key]);
  useEffect(() => {
    load();
    return () => running.current?.abort();
  }, [load]);
  useEffect(() => {
    if (!every) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) load();
    }, every);
    return () => clearInterval(timer);
  }, [load, every]);
  const mine = state.key === key;
  const shown = mine || !fresh;
  return {
    data: shown ? state.data : null,
    error: mine ? state.error : null,
    loading: state.loading || !mine,
    reload: load,
  };
}
