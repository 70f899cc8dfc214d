// The libraries, under the names used here. They are loaded earlier, as plain scripts.

const { h, render, Fragment } = window.preact;
const { useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useId } = window.preactHooks;

export const html = window.htm.bind(h);
export const Plot = window.uPlot;
export { render, Fragment, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback, useId };

/** A store: a value that components can subscribe to. */
export class Store {
  #value;
  #subscribers = new Set();

  constructor(value) {
    this.#value = value;
  }

  get() {
    return this.#value;
  }

  set(value) {
    if (Object.is(value, this.#value)) return;
    this.#value = value;
    for (const subscriber of [...this.#subscribers]) subscriber(value);
  }

  subscribe(subscriber) {
    this.#subscribers.add(subscriber);
    return () => this.#subscribers.delete(subscriber);
  }
}

/** Return a store's value, and render again when it changes. */
export function useStore(store) {
  const [, rerender] = useState(0);
  useEffect(() => {
    let lastValue = store.get();
    const update = () => {
      if (!Object.is(lastValue, store.get())) {
        lastValue = store.get();
        rerender((n) => n + 1);
      }
    };
    const unsubscribe = store.subscribe(update);
    update();
    return unsubscribe;
  }, [store]);
  return store.get();
}
