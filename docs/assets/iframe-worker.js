// Browsers start no worker for a page that is opened from the disk, and the search of this site is one.
// There the worker's script runs in a hidden frame instead; pages that a server sends are left as they are.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(address) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.ready = new Promise((resolve) => {
        const begin = () => {
          const inside = this.frame.contentWindow;
          const answer = (data) => setTimeout(() => this.onmessage?.({ data }));
          inside.postMessage = (data) => answer(structuredClone(data));
          const script = inside.document.createElement("script");
          script.src = new URL(address, document.baseURI).href;
          script.onload = () => resolve(inside);
          script.onerror = (event) => this.onerror?.(event);
          inside.document.head.append(script);
        };
        this.frame.addEventListener("load", begin, { once: true });
      });
      document.body.append(this.frame);
    }

    postMessage(data) {
      this.ready.then((inside) => inside.onmessage({ data: inside.structuredClone(data) }));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
