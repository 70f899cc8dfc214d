// The libraries, under the names used here. They are loaded earlier, as plain scripts.

const { h, render, Fragment } = window.preact;
const { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useId } = window.preactHooks;

export const html = window.htm.bind(h);
export const Plot = window.uPlot;
export { render, Fragment, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useId };

/** A store: a value that components can subscribe to. */
export class Store {
  #value;
  #followers = new Set();

  constructor(value) {
    this.#value = value;
  }

  get() {
    return this.#value;
  }

  set(value) {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const follower of [...this.#followers]) follower(value);
  }

  follow(follower) {
    this.#followers.add(follower);
    return () => this.#followers.delete(follower);
  }
}

/** Return a store's value, and render again when it changes. */
export function useStore(store) {
  const [, turn] = useState(0);
  useEffect(() => {
    let seen = store.get();
    const look = () => {
      if (!Object.is(seen, store.get())) {
        seen = store.get();
        turn((n) => n + 1);
      }
    };
    const leave = store.follow(look);
    look();
    return leave;
  }, [store]);
  return store.get();
}
