// The source of the data: the page itself, or the server of a live page.

class EmbeddedSource {
  constructor(meta) { this.meta = meta; }

  start(update) { return update(this.meta); }

  async blob(name) { return fromBase64(byId(`blob-${name}`).textContent); }
}

class LiveSource {
  live = true;

  /** Polls the server; travel times come only if the tables have changed. */
  async start(update, failed) {
    this.update = update;
    this.failed = failed;
    for (;;) {
      const wait = await this.ask();
      await new Promise((done) => setTimeout(done, wait * 1000));
      // A page in the background does not poll.
      while (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
    }
  }

  /** Seconds until the next poll. */
  async ask() {
    try {
      const known = this.version ? `?known=${encodeURIComponent(this.version)}` : "";
      const answer = await fetch(`report/data.json${known}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      const meta = await answer.json();
      if (meta.gold && meta.gold.cities) this.version = meta.gold.version;
      if (!meta.gold) this.version = undefined;
      await this.update(meta);
      return meta.refresh_seconds;
    } catch (error) {
      this.failed(error);
      return 10;
    }
  }

  async blob(name) {
    const answer = await fetch(`report/blobs/${encodeURIComponent(this.version)}/${name}`);
    if (!answer.ok) {
      this.version = undefined; // the tables have changed: the next poll gets everything
      throw new Error(`the server answered ${answer.status}`);
    }
    return new Uint8Array(await answer.arrayBuffer());
  }
}
