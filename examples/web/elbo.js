// Runs elbo-infer.wasm without an operating system: implements the thirteen WASI functions that it imports, over one
// file and three streams.
//
//     const {output, error, code} = elboRun(module, model, ["encode"], "a small bird\n")
//
// module: a WebAssembly.Module; model: a Uint8Array with the file's bytes. Each run makes a new instance. In a worker
// the first message is {program, model} (bytes); each later message {id, words, input} is answered by {id, ...result}.
"use strict";

function elboRun(module, model, words, input) {
  const OK = 0, BADF = 8, NOENT = 44, NOTCAPABLE = 76;
  const CHARACTERS = 2, FOLDER = 3, REGULAR = 4;
  const bytes = new TextEncoder(), out = [[], []];
  const files = [
    { type: CHARACTERS, data: bytes.encode(input || ""), at: 0 }, { type: CHARACTERS, out: out[0] },
    { type: CHARACTERS, out: out[1] }, { type: FOLDER }];
  const name = "model.elbo", argv = ["elbo-infer", name, ...words].map((w) => bytes.encode(w + "\0"));
  let memory;

  const view = () => new DataView(memory.buffer);
  const slice = (at, size) => new Uint8Array(memory.buffer, at, size);
  const spans = (list, count) => Array.from({ length: count }, (_, i) =>
    slice(view().getUint32(list + 8 * i, true), view().getUint32(list + 8 * i + 4, true)));

  class Exit { constructor(code) { this.code = code; } }
  const wasi = {
    args_sizes_get(count, size) {
      view().setUint32(count, argv.length, true);
      view().setUint32(size, argv.reduce((n, a) => n + a.length, 0), true);
      return OK;
    },
    args_get(list, at) {
      for (const a of argv) {
        view().setUint32(list, at, true);
        slice(at, a.length).set(a);
        list += 4;
        at += a.length;
      }
      return OK;
    },
    clock_time_get(_clock, _precision, to) {
      view().setBigUint64(to, BigInt(Math.round(performance.now() * 1e6)), true);
      return OK;
    },
    fd_close(fd) {
      if (!files[fd]) return BADF;
      files[fd] = undefined;
      return OK;
    },
    fd_fdstat_get(fd, to) {
      if (!files[fd]) return BADF;
      slice(to, 24).fill(0);
      view().setUint8(to, files[fd].type);
      view().setBigUint64(to + 8, ~0n & 0xffffffffffffffffn, true);
      view().setBigUint64(to + 16, ~0n & 0xffffffffffffffffn, true);
      return OK;
    },
    fd_fdstat_set_flags(fd) { return files[fd] ? OK : BADF; },
    fd_prestat_get(fd, to) {
      if (!files[fd] || files[fd].type !== FOLDER) return BADF;
      view().setUint32(to, 0, true);
      view().setUint32(to + 4, 1, true);
      return OK;
    },
    fd_prestat_dir_name(fd, to) {
      if (!files[fd] || files[fd].type !== FOLDER) return BADF;
      slice(to, 1)[0] = 46; // "."
      return OK;
    },
    fd_read(fd, list, count, done) {
      const file = files[fd];
      if (!file || !file.data) return BADF;
      let all = 0;
      for (const to of spans(list, count)) {
        const some = file.data.subarray(file.at, file.at + to.length);
        to.set(some);
        file.at += some.length;
        all += some.length;
      }
      view().setUint32(done, all, true);
      return OK;
    },
    fd_seek(fd, offset, whence, to) {
      const file = files[fd];
      if (!file || !file.data || file.type !== REGULAR) return BADF;
      const from = [0, file.at, file.data.length][whence];
      file.at = Math.max(0, from + Number(offset));
      view().setBigUint64(to, BigInt(file.at), true);
      return OK;
    },
    fd_write(fd, list, count, done) {
      const file = files[fd];
      if (!file || !file.out) return BADF;
      let all = 0;
      for (const from of spans(list, count)) {
        file.out.push(from.slice());
        all += from.length;
      }
      view().setUint32(done, all, true);
      return OK;
    },
    path_open(folder, _look, at, size, create, _base, _inherited, _flags, to) {
      if (!files[folder] || files[folder].type !== FOLDER) return BADF;
      if (create) return NOTCAPABLE;
      if (new TextDecoder().decode(slice(at, size)) !== name) return NOENT;
      files.push({ type: REGULAR, data: model, at: 0 });
      view().setUint32(to, files.length - 1, true);
      return OK;
    },
    proc_exit(code) { throw new Exit(code); },
  };

  const text = (pieces) => {
    const whole = new Uint8Array(pieces.reduce((n, p) => n + p.length, 0));
    let at = 0;
    for (const p of pieces) {
      whole.set(p, at);
      at += p.length;
    }
    return new TextDecoder().decode(whole);
  };
  let code = 0;
  try {
    const instance = new WebAssembly.Instance(module, { wasi_snapshot_preview1: wasi });
    memory = instance.exports.memory;
    instance.exports._start();
  } catch (e) {
    if (!(e instanceof Exit)) return { output: "", error: String(e), code: -1 };
    code = e.code;
  }
  return { output: text(out[0]), error: text(out[1]), code };
}

if (typeof WorkerGlobalScope !== "undefined") {
  let module, model;
  self.onmessage = ({ data }) => {
    if (data.program) {
      module = new WebAssembly.Module(data.program);
      model = new Uint8Array(data.model);
    } else {
      self.postMessage({ id: data.id, ...elboRun(module, model, data.words, data.input) });
    }
  };
}
