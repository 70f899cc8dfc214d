// Requests to the server; every failure becomes the same kind of error.

import { Store, useCallback, useEffect, useRef, useState } from "./lib.js";

export const session = new Store(null);

/** Return whether the log has streams and projections: one on a server has neither. */
export const hasStreams = () => ["sqlite", "memory"].includes(session.get()?.source?.kind);

export class ApiError extends Error {
  constructor(status, code, message, fields = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.message_ko = fields.message_ko;
    this.fields = fields;
  }
}

export function apiUrl(path, params = {}) {
  const url = new URL(`api/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** Parse JSON; an integer too large for a JavaScript number keeps its digits, also through JSON.stringify. */
export const parse = (text) =>
  JSON.parse(text, (_, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source ? JSON.rawJSON(context.source) : value,
  );

async function request(url, options) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", String(error.message || error));
  }
  let body = null;
  try {
    body = parse(await response.text());
  } catch {
    body = null;
  }
  if (response.ok) return body;
  const error = body?.error ?? {};
  if (response.status === 401) {
    const loggedIn = session.get();
    if (loggedIn?.user) session.set({ ...loggedIn, user: null });
  }
  throw new ApiError(response.status, error.code ?? "unknown", error.message ?? response.statusText, error);
}

export const get = (path, params, signal) => request(apiUrl(path, params), { signal });

export const post = (path, body = {}) =>
  request(apiUrl(path), {
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
  const key = path === null ? null : apiUrl(path, params).href;
  const [state, setState] = useState({ key: null, data: null, error: null, loading: true });
  const current = useRef(null);
  const load = useCallback(async () => {
    if (key === null) return;
    current.current?.abort();
    const controller = new AbortController();
    current.current = controller;
    setState((before) => ({ ...before, loading: true }));
    try {
      const data = await request(key, { signal: controller.signal });
      setState({ key, data, error: null, loading: false });
    } catch (error) {
      if (controller.signal.aborted) return;
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
    return () => current.current?.abort();
  }, [load]);
  useEffect(() => {
    if (!every) return undefined;
    const timer = setInterval(() => {
      if (!document.hidden) load();
    }, every);
    return () => clearInterval(timer);
  }, [load, every]);
  const isCurrent = state.key === key;
  const isVisible = isCurrent || !fresh;
  return {
    data: isVisible ? state.data : null,
    error: isCurrent ? state.error : null,
    loading: state.loading || !isCurrent,
    reload: load,
  };
}
